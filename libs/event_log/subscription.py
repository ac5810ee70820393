"""Follows a log from a position and then live, without a gap and without a duplicate.

A subscription is pulled: it reads the next page when its consumer asks for the next step, so a slow consumer costs
nothing but its place in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from libs.event_log.event import RecordedEvent
from libs.event_log.store import EventStore, ForeignCursorError, PositionBeyondHeadError, PositionTooOldError

BATCH_EVENTS = 256
BATCH_BYTES = 1 << 20
CHECKPOINT_SECONDS = 5.0
_SCAN_POSITIONS = 50_000


@dataclass(frozen=True, slots=True)
class EventsStep:
    """Matching events, in order. Every step's `position` is where to resume after it."""

    position: int
    events: Sequence[RecordedEvent]


@dataclass(frozen=True, slots=True)
class CaughtUpStep:
    """Everything recorded before the subscription began has been given. Comes once."""

    position: int


@dataclass(frozen=True, slots=True)
class CheckpointStep:
    """Nothing matched for a while, but the cursor moved."""

    position: int


Step = EventsStep | CaughtUpStep | CheckpointStep


class Subscription:
    """Which events to follow, from where. `after` None: only what is recorded from now on.

    The constructor raises ForeignCursorError, PositionBeyondHeadError or PositionTooOldError.
    """

    def __init__(
        self,
        store: EventStore,
        *,
        store_id: str | None = None,
        after: int | None = None,
        stream_prefix: str | None = None,
        types: Sequence[str] = (),
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        if store_id is not None and store_id != store.store_id:
            raise ForeignCursorError(store.store_id, store_id)
        if after is not None and after > store.head:
            raise PositionBeyondHeadError(after, store.head)
        if after is not None and after < store.oldest - 1:
            raise PositionTooOldError(after, store.oldest)
        self._store = store
        self._cursor = store.head if after is None else after
        self._live_from = store.head
        self._stream_prefix = stream_prefix
        self._types = types
        self._checkpoint_seconds = checkpoint_seconds
        self._told = self._cursor

    async def steps(self, stop: asyncio.Event) -> AsyncGenerator[Step, None]:
        """The steps, until `stop` is set. LogClosedError when the log is closed."""
        stopped = asyncio.create_task(stop.wait())
        loop = asyncio.get_running_loop()
        caught_up = False
        try:
            quiet_since = loop.time()
            while not stop.is_set():
                async for events in self._scan():
                    yield EventsStep(self._tell(events[-1].position), events)
                    quiet_since = loop.time()
                    if stop.is_set():
                        return
                if not caught_up and self._cursor >= self._live_from:
                    caught_up = True
                    yield CaughtUpStep(self._tell(self._cursor))
                    quiet_since = loop.time()
                if self._told < self._cursor and loop.time() - quiet_since >= self._checkpoint_seconds:
                    yield CheckpointStep(self._tell(self._cursor))
                    quiet_since = loop.time()
                if self._cursor >= self._store.head:
                    silent = self._told < self._cursor
                    due = max(0.0, quiet_since + self._checkpoint_seconds - loop.time()) if silent else None
                    await self._wait(stopped, due)
        finally:
            stopped.cancel()

    async def _scan(self) -> AsyncIterator[Sequence[RecordedEvent]]:
        """Matching events up to the head, or in the next stretch of a long log, in batches; then moves the cursor."""
        upto = min(self._store.head, self._cursor + _SCAN_POSITIONS)
        pages = self._store.read(self._cursor, upto=upto, stream_prefix=self._stream_prefix, types=self._types)
        async for page in pages:
            for batch in batches(page):
                self._cursor = batch[-1].position
                yield batch
        self._cursor = max(self._cursor, upto)

    async def _wait(self, stopped: asyncio.Task[Literal[True]], timeout: float | None) -> None:
        moved = asyncio.create_task(self._store.wait_beyond(self._cursor))
        try:
            either: set[asyncio.Task[Any]] = {moved, stopped}
            await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if moved.done():
                moved.result()
        finally:
            moved.cancel()

    def _tell(self, position: int) -> int:
        self._told = position
        return position


def batches(events: Sequence[RecordedEvent]) -> Iterator[Sequence[RecordedEvent]]:
    """Cuts a page into pieces that fit a message well."""
    batch: list[RecordedEvent] = []
    size = 0
    for event in events:
        if batch and (len(batch) == BATCH_EVENTS or size + len(event.payload) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += len(event.payload)
    if batch:
        yield batch
