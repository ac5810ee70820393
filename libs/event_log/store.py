"""The contract of an event store. Every store passes the same conformance suite (tests/integration/event_log)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import msgspec

from libs.event_log.event import NewEvent, RecordedEvent

if TYPE_CHECKING:
    from libs.event_log.lease import Leases

MAX_PAYLOAD_BYTES = 1 << 20
"""Larger evidence belongs into a blob, with its digest in the event."""


class Expected(Enum):
    """What the appender expects of a stream, other than an exact revision."""

    NONE = "none"
    EXISTS = "exists"
    ANY = "any"


class StreamAppend(msgspec.Struct, frozen=True):
    """Events for one stream. `expected` is the revision of its last event (from 0), or one of `Expected`."""

    stream: str
    expected: int | Expected
    events: Sequence[NewEvent]


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Makes a write safe to repeat: same key and digest, same answer; same key with another digest, a conflict."""

    actor: str
    method: str
    request_id: str
    body_digest: bytes


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """What the log keeps of an answered request. One without events has `last_position` = `first_position` - 1."""

    request: RequestKey
    first_position: int
    last_position: int


@dataclass(frozen=True, slots=True)
class LeaseFence:
    """Lets an append through only while the lease of this name with this token is held."""

    name: str
    token: int


class AppendResult(msgspec.Struct, frozen=True):
    """`events` in log order. `repeated`: this request was recorded before, and these are the events of that time."""

    events: Sequence[RecordedEvent]
    repeated: bool = False


class EventStoreError(Exception):
    """Base of everything that a store refuses or fails at."""


class RevisionConflictError(EventStoreError):
    """Somebody appended to the stream since the appender looked."""

    def __init__(self, stream: str, expected: int | Expected, actual: int | None) -> None:
        super().__init__(f"stream {stream}: expected revision {expected}, found {actual}")
        self.stream, self.expected, self.actual = stream, expected, actual


class RequestIdReusedError(EventStoreError):
    """The request id was used before with another body."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request_id {request_id!r} was used before with another body")
        self.request_id = request_id


class EventTooLargeError(EventStoreError):
    """A payload exceeds MAX_PAYLOAD_BYTES."""

    def __init__(self, type_name: str, size: int) -> None:
        super().__init__(f"an event of type {type_name} has {size} bytes; the log takes {MAX_PAYLOAD_BYTES}")
        self.type_name, self.size = type_name, size


class InvalidEventError(EventStoreError):
    """A field that no store can hold: an empty name, text that isn't Unicode, a NUL."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"an event's {field} {description}")
        self.field, self.description = field, description


class LeaseLostError(EventStoreError):
    """The lease isn't held any more, so somebody else may be at the work; nothing was appended."""

    def __init__(self, fence: LeaseFence) -> None:
        super().__init__(f"the lease {fence.name} with token {fence.token} is lost")
        self.fence = fence


class LogDiskFullError(EventStoreError):
    """The log's disk is full; nothing was appended, reads go on."""


class LogUnavailableError(EventStoreError):
    """The store can't be written or read for the moment; nothing was appended, unless a subclass says otherwise."""


class AppendOutcomeUnknownError(LogUnavailableError):
    """The connection broke before the answer came: the append may or may not be in the log.

    A repeat with the same request key tells, and appends once at most.
    """


class LogClosedError(LogUnavailableError):
    """The store was closed, or is closing."""


class LogDamagedError(EventStoreError):
    """The stored bytes contradict themselves. Position 0: somewhere in the file."""

    def __init__(self, position: int, detail: str) -> None:
        super().__init__(f"the event log is damaged at position {position}: {detail}")
        self.position, self.detail = position, detail


class LogInUseError(EventStoreError):
    """Another process keeps this log."""


class LogLocationError(EventStoreError):
    """A log can't be kept there: a network filesystem, or a file that isn't a Labferry log of a known version."""


class ForeignCursorError(EventStoreError):
    """A cursor belongs to another log, perhaps the one that this was restored from."""

    def __init__(self, store_id: str, cursor_store_id: str) -> None:
        super().__init__(f"the position belongs to the log {cursor_store_id}; this is {store_id}")
        self.store_id, self.cursor_store_id = store_id, cursor_store_id


class PositionBeyondHeadError(EventStoreError):
    """A position that the log hasn't reached."""

    def __init__(self, position: int, head: int) -> None:
        super().__init__(f"position {position} lies beyond the head of the log, {head}")
        self.position, self.head = position, head


class PositionTooOldError(EventStoreError):
    """Events right after this position are no longer kept."""

    def __init__(self, position: int, oldest: int) -> None:
        super().__init__(f"events after position {position} are no longer kept; the oldest is {oldest}")
        self.position, self.oldest = position, oldest


class EventStore(Protocol):
    """An append-only, totally ordered, hash-chained log.

    Reads see every event that was committed before the read began, in position order without gaps. An append either
    happens whole or not at all; its caller's cancellation doesn't undo it, so a repeat needs the same request key.
    """

    @property
    def store_id(self) -> str: ...

    @property
    def head(self) -> int:
        """Position of the last event that this process knows to be committed."""

    @property
    def oldest(self) -> int:
        """Position of the first event still kept."""

    @property
    def damage(self) -> LogDamagedError | None:
        """What is known to be wrong with the stored bytes; appends are refused then."""

    @property
    def leases(self) -> Leases:
        """Who does what, among the processes that share this log."""

    async def append(
        self, appends: Sequence[StreamAppend], request: RequestKey | None = None, fence: LeaseFence | None = None
    ) -> AppendResult:
        """Append atomically. Errors: the EventStoreError classes above.

        With a `fence`, LeaseLostError unless that lease is held at the very moment that orders the append in the log;
        a request that was recorded before is answered all the same.
        """

    async def find_request(self, request: RequestKey) -> AppendResult | None:
        """What a request appended earlier; None if it is new. RequestIdReusedError for another body."""

    def requests(self, upto: int) -> AsyncIterator[Sequence[RequestRecord]]:
        """Pages of the requests whose `last_position` is <= `upto`, ordered by actor, method and request id (as UTF-8).

        Pages are never empty. A backup keeps them, so that a request repeated after a restore gets its first answer.
        """

    def read(
        self,
        after: int = 0,
        *,
        upto: int | None = None,
        stream: str | None = None,
        stream_prefix: str | None = None,
        types: Sequence[str] = (),
        limit: int | None = None,
    ) -> AsyncIterator[Sequence[RecordedEvent]]:
        """Pages of matching events with position > `after` (and <= `upto`), ascending. Pages are never empty."""

    def read_backwards(
        self,
        before: int | None = None,
        *,
        stream: str | None = None,
        types: Sequence[str] = (),
        limit: int | None = None,
    ) -> AsyncIterator[Sequence[RecordedEvent]]:
        """Pages of matching events with position < `before` (absent: from the head), descending."""

    async def read_stream(self, stream: str, *, upto_position: int | None = None) -> Sequence[RecordedEvent]:
        """A whole stream (streams stay bounded), oldest first. Empty when there is none."""

    async def last_position_at(self, recorded_ns: int) -> int:
        """Position of the last event recorded at or before a time; 0 when there is none."""

    async def wait_beyond(self, position: int) -> int:
        """Returns the head as soon as it is greater than `position`. Never polls."""

    async def close(self) -> None: ...
