"""labferry.events.v1.EventLogService: translation between protobuf and the event log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypedDict

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from labferry.events.v1 import event_log_service_pb2 as pb
from labferry.events.v1 import event_log_service_pb2_grpc, event_pb2
from libs.event_log.backup import backup_chunks, record_backup
from libs.event_log.blob_store import BlobStore
from libs.event_log.checkpoint_keeper import CheckpointKeeper
from libs.event_log.event import EventTypes, RecordedEvent
from libs.event_log.event_message import add_message
from libs.event_log.export import export_chunks, record_export
from libs.event_log.file_pieces import FileSum, pieces
from libs.event_log.kept_log import KeptLog
from libs.event_log.log_messages import checkpoints_message, projections_message, verdict_message
from libs.event_log.projection import ProjectionRunner
from libs.event_log.store import EventStore
from libs.event_log.subscription import CaughtUpStep, EventsStep, Step, Subscription, batches
from libs.service_kit.call import current_correlation_id
from libs.service_kit.errors import (
    FieldViolation,
    InvalidRequestError,
    SubscriberTooSlowError,
    UnavailableError,
)
from libs.service_kit.identity import current_caller

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_DRAINING = {"dependency": "event_log"}
_LISTED_CHECKPOINTS = 100
_MOST_REASON_CHARACTERS = 1000


class EventLogServicer(event_log_service_pb2_grpc.EventLogServiceServicer):
    """Serves one log. `draining` ends the subscriptions; `projections` is None for a service without read models.

    `blobs` None: no event names any. `checkpoints` None: none are made.
    """

    def __init__(
        self,
        store: EventStore,
        event_types: EventTypes,
        projections: ProjectionRunner | None,
        version: str,
        draining: asyncio.Event,
        *,
        blobs: BlobStore | None = None,
        checkpoints: CheckpointKeeper | None = None,
    ) -> None:
        self._log = KeptLog(store, event_types, blobs, checkpoints)
        self._store = store
        self._event_types = event_types
        self._projections = projections
        self._version = version
        self._draining = draining

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.GetServerInfoResponse:
        caller, now = current_caller(), Timestamp()
        now.GetCurrentTime()
        return pb.GetServerInfoResponse(
            time=now,
            version=self._version,
            store_id=self._store.store_id,
            head_position=self._store.head,
            oldest_position=self._store.oldest,
            caller=caller.actor,
            roles=sorted(caller.roles),
            projections=() if self._projections is None else projections_message(self._projections),
        )

    async def ReadEvents(self, request: pb.ReadEventsRequest, context: Context) -> AsyncIterator[event_pb2.EventBatch]:
        _require_not_negative(("from_position", request.from_position), ("limit", request.limit))
        matched = False
        async for page in self._pages(request):
            for events in batches(page):
                matched = True
                yield self._batch(events)
        if not matched:
            yield self._batch(())

    async def SubscribeEvents(
        self, request: pb.SubscribeEventsRequest, context: Context
    ) -> AsyncIterator[pb.SubscribeEventsResponse]:
        _require_not_negative(("after_position", request.after_position))
        subscription = Subscription(
            self._store,
            store_id=request.store_id if request.HasField("store_id") else None,
            after=request.after_position if request.HasField("after_position") else None,
            stream_prefix=request.stream_prefix or None,
            types=tuple(request.types),
        )
        async with aclosing(subscription.steps(self._draining)) as steps:
            async for step in steps:
                try:
                    yield self._response(step)
                except SubscriberTooSlowError as error:
                    where = {"last_position": str(step.position)}
                    raise SubscriberTooSlowError("the reader took nothing for too long", metadata=where) from error
        raise UnavailableError("the service is stopping; resume after the last position", metadata=_DRAINING)

    async def VerifyLog(self, request: pb.VerifyLogRequest, context: Context) -> pb.VerifyLogResponse:
        first, last = self._range(request.from_position, request.to_position)
        return verdict_message(await self._log.verify(first, last, read_blobs=not request.skip_blobs))

    async def ExportEvents(self, request: pb.ExportEventsRequest, context: Context) -> AsyncIterator[pb.FilePiece]:
        first, last = self._range(request.from_position, request.to_position)
        _require_reason(request.reason)
        last = await record_export(self._store, first, last, **_asked(request.reason))
        async for piece in _file(export_chunks(self._log, first, last)):
            yield piece

    async def BackUp(self, request: pb.BackUpRequest, context: Context) -> AsyncIterator[pb.FilePiece]:
        _require_reason(request.reason)
        head = await record_backup(self._store, **_asked(request.reason))
        async for piece in _file(backup_chunks(self._log, head, self._version)):
            yield piece

    async def ListCheckpoints(self, request: pb.ListCheckpointsRequest, context: Context) -> pb.ListCheckpointsResponse:
        _require_not_negative(("limit", request.limit))
        keeper = self._log.checkpoints
        if keeper is None:
            return pb.ListCheckpointsResponse()
        return checkpoints_message(await keeper.newest(request.limit or _LISTED_CHECKPOINTS), keeper.places)

    async def RebuildProjections(
        self, request: pb.RebuildProjectionsRequest, context: Context
    ) -> pb.RebuildProjectionsResponse:
        response = pb.RebuildProjectionsResponse()
        if self._projections is None:
            return response
        for report in await self._projections.rebuild(request.dry_run):
            response.projections.add(
                name=report.name,
                events_applied=report.events_applied,
                differences=report.differences,
                difference_samples=report.samples,
            )
        return response

    def _pages(self, request: pb.ReadEventsRequest) -> AsyncIterator[Sequence[RecordedEvent]]:
        stream, types, limit = request.stream or None, tuple(request.types), request.limit or None
        if request.backwards:
            before = request.from_position + 1 if request.from_position else None
            return self._store.read_backwards(before, stream=stream, types=types, limit=limit)
        return self._store.read(max(0, request.from_position - 1), stream=stream, types=types, limit=limit)

    def _response(self, step: Step) -> pb.SubscribeEventsResponse:
        response = pb.SubscribeEventsResponse(position=step.position, store_id=self._store.store_id)
        if isinstance(step, EventsStep):
            self._fill(response.events, step.events)
        elif isinstance(step, CaughtUpStep):
            response.caught_up.SetInParent()
        else:
            response.checkpoint.SetInParent()
        return response

    def _batch(self, events: Iterable[RecordedEvent]) -> event_pb2.EventBatch:
        batch = event_pb2.EventBatch()
        self._fill(batch, events)
        return batch

    def _fill(self, batch: event_pb2.EventBatch, events: Iterable[RecordedEvent]) -> None:
        batch.store_id = self._store.store_id
        for event in events:
            add_message(batch, event, self._event_types)

    def _range(self, from_position: int, to_position: int) -> tuple[int, int | None]:
        _require_not_negative(("from_position", from_position), ("to_position", to_position))
        first, last = from_position or self._store.oldest, to_position or None
        if last is not None and last < first:
            raise InvalidRequestError(FieldViolation("to_position", "lies before from_position"))
        return first, last


async def _file(chunks: AsyncGenerator[bytes, None]) -> AsyncIterator[pb.FilePiece]:
    # A caller that goes away ends the reading at once, not when somebody collects the garbage.
    async with aclosing(chunks), aclosing(pieces(chunks)) as parts:
        async for part in parts:
            if isinstance(part, FileSum):
                yield pb.FilePiece(end=pb.FileEnd(size=part.size, sha256=part.sha256))
            else:
                yield pb.FilePiece(data=part)


class _Asked(TypedDict):
    actor: str
    reason: str
    correlation_id: str


def _asked(reason: str) -> _Asked:
    """Who asks, and why, for the record."""
    return _Asked(actor=current_caller().actor, reason=reason, correlation_id=current_correlation_id())


def _require_reason(reason: str) -> None:
    if len(reason) > _MOST_REASON_CHARACTERS or not reason.isprintable():
        most = f"must be at most {_MOST_REASON_CHARACTERS} printable characters"
        raise InvalidRequestError(FieldViolation("reason", most))


def _require_not_negative(*fields: tuple[str, int]) -> None:
    violations = [FieldViolation(name, "must not be negative") for name, value in fields if value < 0]
    if violations:
        raise InvalidRequestError(*violations)
