"""Checks a range of a log: every hash must follow from its predecessor and its event."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from libs.event_log.hash_chain import FIRST_PREVIOUS_HASH, ChainBreak, ChainCheck
from libs.event_log.store import EventStore, LogDamagedError, PositionBeyondHeadError


@dataclass(frozen=True, slots=True)
class LogVerdict:
    """What a check found. `first_break` is None when the range is intact; `head_hash` is the stored one."""

    head_position: int
    head_hash: bytes
    events_checked: int
    first_break: ChainBreak | None


async def verify_log(store: EventStore, first: int = 1, last: int | None = None) -> LogVerdict:
    """Checks positions `first` to `last` (absent: the head), both inclusive, beside other work.

    PositionBeyondHeadError for a range that the log doesn't have. Damage is an answer, not an error.
    """
    head = store.head
    end = head if last is None else last
    for position in (first, end):
        if position > head:
            raise PositionBeyondHeadError(position, head)
    check = ChainCheck(store.store_id, first_position=first)
    found = await _check_range(store, check, first, end)
    if found is None and store.damage is not None and last is None:
        # What a chain alone can't show: a tail that was cut off, or a file whose structure is broken.
        found = ChainBreak(store.damage.position, store.damage.detail)
    return LogVerdict(head, await _hash_at(store, head), check.checked, found)


async def _check_range(store: EventStore, check: ChainCheck, first: int, end: int) -> ChainBreak | None:
    try:
        if first > 1:
            check.hash = await _hash_at(store, first - 1)
        async for page in store.read(first - 1, upto=end):
            if (found := await asyncio.to_thread(check.check, page)) is not None:
                return found
    except LogDamagedError as error:
        return ChainBreak(first + check.checked, error.detail)
    next_position = first + check.checked
    if next_position <= end:
        return ChainBreak(next_position, f"no event has position {next_position}, and none follows")
    return None


async def _hash_at(store: EventStore, position: int) -> bytes:
    async for page in store.read(position - 1, upto=position):
        return page[0].hash
    return FIRST_PREVIOUS_HASH if position == 0 else b""
