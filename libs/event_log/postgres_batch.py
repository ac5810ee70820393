"""A batch of appends as the arguments of append_events(), and its rows as their outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import asyncpg

from libs.event_log.event import NewEvent, RecordedEvent
from libs.event_log.postgres_append_function import ANY_EXPECTED, EXISTS_EXPECTED, NONE_EXPECTED
from libs.event_log.store import (
    AppendResult,
    EventStoreError,
    Expected,
    LeaseFence,
    LeaseLostError,
    LogUnavailableError,
    RequestIdReusedError,
    RequestKey,
    RevisionConflictError,
    StreamAppend,
)

_EXPECTED = {Expected.NONE: NONE_EXPECTED, Expected.ANY: ANY_EXPECTED, Expected.EXISTS: EXISTS_EXPECTED}
_NO_REVISION = (1 << 63) - 1
"""A revision that no stream reaches, for what can't be one."""


@dataclass(slots=True, eq=False)
class PendingAppend:
    """An append on its way. Its events have their ids already, so that it can be found again."""

    appends: Sequence[StreamAppend]
    request: RequestKey | None
    fence: LeaseFence | None
    event_ids: Sequence[str]
    outcome: AppendResult | EventStoreError | None = None

    @property
    def payload_bytes(self) -> int:
        return sum(len(event.payload) for append in self.appends for event in append.events)


@dataclass(frozen=True, slots=True)
class Repeated:
    """A request that was recorded earlier, with the positions of its events."""

    pending: PendingAppend
    first_position: int
    last_position: int


def append_call(schema: str) -> str:
    marks = ", ".join(f"${number}" for number in range(1, 22))
    return f"SELECT * FROM {schema}.append_events({marks})"


def batch_arguments(batch: Sequence[PendingAppend], now_ns: int | None, sent_before: bool) -> tuple[object, ...]:
    """In the order of the function's parameters."""
    requests = [pending.request for pending in batch]
    fences = [pending.fence for pending in batch]
    parts = [append for pending in batch for append in pending.appends]
    events = [event for part in parts for event in part.events]
    return (
        [request and request.actor for request in requests],
        [request and request.method for request in requests],
        [request and request.request_id for request in requests],
        [request and request.body_digest for request in requests],
        [fence and fence.name for fence in fences],
        [fence and fence.token for fence in fences],
        [len(pending.appends) for pending in batch],
        [part.stream for part in parts],
        [_expected(part.expected) for part in parts],
        [len(part.events) for part in parts],
        [event.type for event in events],
        [event_id for pending in batch for event_id in pending.event_ids],
        [event.payload for event in events],
        [event.actor for event in events],
        [event.may_ignore for event in events],
        [event.on_behalf_of for event in events],
        [event.reason for event in events],
        [event.correlation_id for event in events],
        [event.causation_id for event in events],
        now_ns,
        sent_before,
    )


def take_outcomes(batch: Sequence[PendingAppend], rows: Iterable[asyncpg.Record]) -> list[Repeated]:
    """Gives each append its outcome, but those that repeat a request: their events have to be read."""
    repeated: list[Repeated] = []
    recorded: dict[int, list[asyncpg.Record]] = {}
    for row in rows:
        number, outcome, position, revision, _, _, _, upto, part = row
        pending = batch[number - 1]
        match outcome:
            case "recorded":
                recorded.setdefault(number, []).append(row)
            case "repeated":
                repeated.append(Repeated(pending, position, upto))
            case "reused" if pending.request is not None:
                pending.outcome = RequestIdReusedError(pending.request.request_id)
            case "lease_lost" if pending.fence is not None:
                pending.outcome = LeaseLostError(pending.fence)
            case "conflict":
                refused = pending.appends[part]
                actual = revision if revision >= 0 else None
                pending.outcome = RevisionConflictError(refused.stream, refused.expected, actual)
    for number, places in recorded.items():
        pending = batch[number - 1]
        pending.outcome = AppendResult(_events(pending, places))
    answered = {id(again.pending) for again in repeated}
    for pending in batch:
        if pending.outcome is None and id(pending) not in answered:
            pending.outcome = LogUnavailableError("the event log's database gave no answer to an append")
    return repeated


def _events(pending: PendingAppend, places: Sequence[asyncpg.Record]) -> list[RecordedEvent]:
    contents: list[NewEvent] = [event for append in pending.appends for event in append.events]
    if not contents:
        return []
    return [
        RecordedEvent(
            position,
            stream,
            revision,
            content.type,
            event_id,
            recorded_ns,
            content.actor,
            content.payload,
            event_hash,
            content.may_ignore,
            content.on_behalf_of,
            content.reason,
            content.correlation_id,
            content.causation_id,
        )
        for content, event_id, (_, _, position, revision, recorded_ns, event_hash, stream, *_) in zip(
            contents, pending.event_ids, places, strict=True
        )
    ]


def _expected(expected: int | Expected) -> int:
    if isinstance(expected, Expected):
        return _EXPECTED[expected]
    return expected if 0 <= expected < _NO_REVISION else _NO_REVISION
