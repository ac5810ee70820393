"""labferry.events.v1.EventLogService: translation between protobuf and the event log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from labferry.events.v1 import event_log_service_pb2 as pb
from labferry.events.v1 import event_log_service_pb2_grpc, event_pb2
from libs.event_log.event import EventTypes, RecordedEvent
from libs.event_log.log_verification import verify_log
from libs.event_log.projection import ProjectionRunner
from libs.event_log.store import EventStore
from libs.event_log.subscription import CaughtUpStep, EventsStep, Step, Subscription, batches
from libs.service_kit.errors import FieldViolation, InvalidRequestError, UnavailableError
from libs.service_kit.identity import current_caller

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_DRAINING = {"dependency": "event_log"}
_TYPE_URL = "type.googleapis.com/"
_UNKNOWN_TYPE_URL = "type.labferry.unknown/"


class EventLogServicer(event_log_service_pb2_grpc.EventLogServiceServicer):
    """Serves one log. `draining` ends the subscriptions; `projections` is None for a service without read models."""

    def __init__(
        self,
        store: EventStore,
        event_types: EventTypes,
        projections: ProjectionRunner | None,
        version: str,
        draining: asyncio.Event,
    ) -> None:
        self._store = store
        self._event_types = event_types
        self._projections = projections
        self._version = version
        self._draining = draining

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.GetServerInfoResponse:
        caller = current_caller()
        return pb.GetServerInfoResponse(
            version=self._version,
            store_id=self._store.store_id,
            head_position=self._store.head,
            oldest_position=self._store.oldest,
            caller=caller.actor,
            roles=sorted(caller.roles),
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
        async for step in subscription.steps(self._draining):
            yield self._response(step)
        raise UnavailableError("the service is stopping; resume after the last position", metadata=_DRAINING)

    async def VerifyLog(self, request: pb.VerifyLogRequest, context: Context) -> pb.VerifyLogResponse:
        first, last = request.from_position or self._store.oldest, request.to_position or None
        _require_not_negative(("from_position", request.from_position), ("to_position", request.to_position))
        if last is not None and last < first:
            raise InvalidRequestError(FieldViolation("to_position", "lies before from_position"))
        verdict = await verify_log(self._store, first, last)
        response = pb.VerifyLogResponse(
            intact=verdict.first_break is None,
            head_position=verdict.head_position,
            head_hash=verdict.head_hash.hex(),
            events_checked=verdict.events_checked,
        )
        if verdict.first_break is not None:
            response.first_bad_position = verdict.first_break.position
            response.reason = verdict.first_break.reason
        return response

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
            response.events.CopyFrom(self._batch(step.events))
        elif isinstance(step, CaughtUpStep):
            response.caught_up.SetInParent()
        else:
            response.checkpoint.SetInParent()
        return response

    def _batch(self, events: Iterable[RecordedEvent]) -> event_pb2.EventBatch:
        batch = event_pb2.EventBatch(store_id=self._store.store_id)
        for event in events:
            self._add(batch, event)
        return batch

    def _add(self, batch: event_pb2.EventBatch, event: RecordedEvent) -> None:
        seconds, nanos = divmod(event.recorded_ns, 1_000_000_000)
        message = batch.events.add(
            position=event.position,
            stream=event.stream,
            revision=event.revision,
            type=event.type,
            event_id=event.event_id,
            actor=event.actor,
            on_behalf_of=event.on_behalf_of,
            reason=event.reason,
            correlation_id=event.correlation_id,
            causation_id=event.causation_id,
            may_ignore=event.may_ignore,
            hash=event.hash,
        )
        message.recorded_time.seconds, message.recorded_time.nanos = seconds, nanos
        event_type = self._event_types.get(event.type)
        if event_type is None:
            message.payload.type_url = _UNKNOWN_TYPE_URL + event.type
        else:
            message.payload.type_url = _TYPE_URL + event_type.payload.DESCRIPTOR.full_name
        message.payload.value = event.payload


def _require_not_negative(*fields: tuple[str, int]) -> None:
    violations = [FieldViolation(name, "must not be negative") for name, value in fields if value < 0]
    if violations:
        raise InvalidRequestError(*violations)
