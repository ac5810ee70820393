"""The event store in memory: the same contract without a disk, for tests and trials."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from libs.event_log.event import RecordedEvent
from libs.event_log.genesis import genesis
from libs.event_log.head_watch import HeadWatch
from libs.event_log.local_leases import LocalLeases
from libs.event_log.recording import LogHead, Recorder, check_appends
from libs.event_log.store import (
    AppendResult,
    LeaseFence,
    LogClosedError,
    LogDamagedError,
    RequestIdReusedError,
    RequestKey,
    RequestRecord,
    StreamAppend,
)
from libs.event_log.uuid7 import Uuid7Source

_PAGE_EVENTS = 1_000


class MemoryEventStore:
    """An EventStore that is gone with its process."""

    def __init__(self, *, service: str, version: str, clock: Callable[[], int] = time.time_ns) -> None:
        self._store_id = str(uuid.uuid4())
        self._clock = clock
        self._ids = Uuid7Source()
        self._events: list[RecordedEvent] = []
        self._revisions: dict[str, int] = {}
        self._requests: dict[tuple[str, str, str], tuple[RequestRecord, Sequence[RecordedEvent]]] = {}
        self._end = LogHead()
        self._closed = False
        self._watch = HeadWatch(0)
        self._leases = LocalLeases()
        self._record((genesis(self._store_id, service, version),))

    @property
    def store_id(self) -> str:
        return self._store_id

    @property
    def head(self) -> int:
        return self._watch.head

    @property
    def oldest(self) -> int:
        return 1

    @property
    def damage(self) -> LogDamagedError | None:
        return None

    @property
    def leases(self) -> LocalLeases:
        return self._leases

    async def append(
        self, appends: Sequence[StreamAppend], request: RequestKey | None = None, fence: LeaseFence | None = None
    ) -> AppendResult:
        check_appends(appends, request)
        if self._closed:
            raise LogClosedError("the event log is closed")
        if request is not None and (earlier := self._earlier(request)) is not None:
            return earlier
        with self._leases.fenced(fence):
            events = self._record(appends)
        if request is not None:
            head = self._end.position
            record = RequestRecord(request, head - len(events) + 1, head)
            self._requests[request.actor, request.method, request.request_id] = (record, events)
        return AppendResult(events)

    async def find_request(self, request: RequestKey) -> AppendResult | None:
        return self._earlier(request)

    async def requests(self, upto: int) -> AsyncIterator[Sequence[RequestRecord]]:
        records = [record for _, (record, _) in sorted(self._requests.items()) if record.last_position <= upto]
        for start in range(0, len(records), _PAGE_EVENTS):
            yield records[start : start + _PAGE_EVENTS]

    async def read(
        self,
        after: int = 0,
        *,
        upto: int | None = None,
        stream: str | None = None,
        stream_prefix: str | None = None,
        types: Sequence[str] = (),
        limit: int | None = None,
    ) -> AsyncIterator[Sequence[RecordedEvent]]:
        last = self.head if upto is None else min(upto, self.head)
        matching = [
            event
            for event in self._events[max(0, after) : max(0, last)]
            if _matches(event, stream, types) and event.stream.startswith(stream_prefix or "")
        ]
        for page in _pages(matching[:limit]):
            yield page

    async def read_backwards(
        self,
        before: int | None = None,
        *,
        stream: str | None = None,
        types: Sequence[str] = (),
        limit: int | None = None,
    ) -> AsyncIterator[Sequence[RecordedEvent]]:
        last = self.head if before is None else min(before - 1, self.head)
        matching = [event for event in reversed(self._events[: max(0, last)]) if _matches(event, stream, types)]
        for page in _pages(matching[:limit]):
            yield page

    async def read_stream(self, stream: str, *, upto_position: int | None = None) -> Sequence[RecordedEvent]:
        last = self.head if upto_position is None else upto_position
        return [event for event in self._events[: max(0, last)] if event.stream == stream]

    async def last_position_at(self, recorded_ns: int) -> int:
        return sum(event.recorded_ns <= recorded_ns for event in self._events)

    async def wait_beyond(self, position: int) -> int:
        return await self._watch.wait_beyond(position)

    async def close(self) -> None:
        self._closed = True
        self._watch.end(lambda: LogClosedError("the event log is closed"))

    def _record(self, appends: Sequence[StreamAppend]) -> Sequence[RecordedEvent]:
        recorder = Recorder(self._store_id, self._end, self._revisions, self._ids, self._clock())
        events = recorder.record(appends)
        self._end = recorder.head
        self._events += events
        self._watch.advance(self._end.position)
        return events

    def _earlier(self, request: RequestKey) -> AppendResult | None:
        found = self._requests.get((request.actor, request.method, request.request_id))
        if found is None:
            return None
        record, events = found
        if record.request.body_digest != request.body_digest:
            raise RequestIdReusedError(request.request_id)
        return AppendResult(events, repeated=True)


def _matches(event: RecordedEvent, stream: str | None, types: Sequence[str]) -> bool:
    return (stream is None or event.stream == stream) and (not types or event.type in types)


def _pages(events: Sequence[RecordedEvent]) -> Iterator[Sequence[RecordedEvent]]:
    return (events[start : start + _PAGE_EVENTS] for start in range(0, len(events), _PAGE_EVENTS))
