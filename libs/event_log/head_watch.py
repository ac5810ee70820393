"""A position that only moves forward, and those who wait for it to move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class HeadWatch:
    """Event-driven: who waits is woken by the very step that moved the position."""

    def __init__(self, head: int) -> None:
        self.head = head
        self._waiting: set[asyncio.Future[None]] = set()
        self._ended: Callable[[], Exception] | None = None

    def advance(self, head: int) -> None:
        if head > self.head:
            self.head = head
            self._wake()

    def end(self, reason: Callable[[], Exception]) -> None:
        """The position won't move any more: who waits, now or later, gets the error that `reason` makes."""
        self._ended = reason
        self._wake()

    def resume(self, head: int) -> None:
        """The position moves again, from `head`."""
        self._ended = None
        self.head = head
        self._wake()

    async def wait_beyond(self, position: int) -> int:
        """The position, as soon as it is greater than `position`; at once if it is."""
        while self.head <= position:
            if self._ended is not None:
                raise self._ended()
            moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(moved)
            try:
                await moved
            finally:
                self._waiting.discard(moved)
        return self.head

    def _wake(self) -> None:
        for moved in self._waiting:
            if not moved.done():
                moved.set_result(None)
