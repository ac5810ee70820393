"""Checks a range of a log: its hash chain, the checkpoints outside it, and the blobs that its events name."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from libs.event_log.blob_verification import BlobCheck, BlobProblem
from libs.event_log.checkpoint_verification import CheckpointCheck, CheckpointProblem, UnreadPlace
from libs.event_log.event import RecordedEvent
from libs.event_log.hash_chain import FIRST_PREVIOUS_HASH, ChainBreak, ChainCheck
from libs.event_log.store import EventStore, LogDamagedError, PositionBeyondHeadError


@dataclass(frozen=True, slots=True)
class LogVerdict:
    """What a check found; `head_hash` is the stored one.

    `first_break` is where the chain breaks, None when it holds.
    """

    head_position: int
    head_hash: bytes
    events_checked: int
    first_break: ChainBreak | None
    checkpoints_checked: int = 0
    checkpoint_problems: Sequence[CheckpointProblem] = ()
    unread_places: Sequence[UnreadPlace] = ()
    blobs_checked: int = 0
    blob_problems: Sequence[BlobProblem] = ()

    @property
    def first_bad(self) -> ChainBreak | None:
        """What is wrong with the chain, else with the first checkpoint, else with the first blob. None: nothing."""
        if self.first_break is not None:
            return self.first_break
        for checkpoint in self.checkpoint_problems:
            return ChainBreak(checkpoint.position, f"{checkpoint.file.name} {checkpoint.number}: {checkpoint.reason}")
        for blob in self.blob_problems:
            return ChainBreak(blob.position, blob.reason)
        return None


class _Range:
    """The checks that one pass over the events feeds."""

    def __init__(self, chain: ChainCheck, checkpoints: CheckpointCheck | None, blobs: BlobCheck | None) -> None:
        self.chain = chain
        self._checkpoints = checkpoints
        self._blobs = blobs
        self.broken: ChainBreak | None = None

    def show(self, page: Sequence[RecordedEvent]) -> None:
        """Goes on behind a break: what checkpoints and blobs say there helps to find out what happened."""
        if self.broken is None:
            self.broken = self.chain.check(page)
        if self._checkpoints is not None:
            self._checkpoints.show(page)
        if self._blobs is not None:
            self._blobs.show(page)


async def verify_log(
    store: EventStore,
    first: int = 1,
    last: int | None = None,
    *,
    checkpoints: CheckpointCheck | None = None,
    blobs: BlobCheck | None = None,
) -> LogVerdict:
    """Checks positions `first` to `last` (absent: the head), both inclusive, beside other work.

    `checkpoints` is loaded. PositionBeyondHeadError for a range that the log doesn't have. Damage is an answer, not an
    error.
    """
    head = store.head
    end = head if last is None else last
    for position in (first, end):
        if position > head:
            raise PositionBeyondHeadError(position, head)
    if checkpoints is not None:
        checkpoints.begin(first, end, head)
    chain = ChainCheck(store.store_id, first_position=first)
    found = await _check_range(store, _Range(chain, checkpoints, blobs), first, end)
    if found is None and store.damage is not None and last is None:
        # What a chain alone can't show: a tail that was cut off, or a file whose structure is broken.
        found = ChainBreak(store.damage.position, store.damage.detail)
    return LogVerdict(
        head_position=head,
        head_hash=await _hash_at(store, head),
        events_checked=chain.checked,
        first_break=found,
        checkpoints_checked=checkpoints.checked if checkpoints is not None else 0,
        checkpoint_problems=checkpoints.finish() if checkpoints is not None else (),
        unread_places=checkpoints.unread if checkpoints is not None else (),
        blobs_checked=blobs.checked if blobs is not None else 0,
        blob_problems=blobs.problems if blobs is not None else (),
    )


async def _check_range(store: EventStore, checks: _Range, first: int, end: int) -> ChainBreak | None:
    chain, seen = checks.chain, first - 1
    try:
        if first > 1:
            chain.hash = await _hash_at(store, first - 1)
        async for page in store.read(first - 1, upto=end):
            await asyncio.to_thread(checks.show, page)
            seen = page[-1].position
    except LogDamagedError as error:
        return checks.broken or ChainBreak(seen + 1, error.detail)
    if checks.broken is not None:
        return checks.broken
    next_position = first + chain.checked
    if next_position <= end:
        return ChainBreak(next_position, f"no event has position {next_position}, and none follows")
    return None


async def _hash_at(store: EventStore, position: int) -> bytes:
    async for page in store.read(position - 1, upto=position):
        return page[0].hash
    return FIRST_PREVIOUS_HASH if position == 0 else b""
