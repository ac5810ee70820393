"""The head of a log as this process knows it, and those who wait for it to move."""

from __future__ import annotations

import asyncio

from libs.event_log.store import LogUnavailableError


class HeadWatch:
    """Event-driven: who waits is woken by the commit itself."""

    def __init__(self, head: int) -> None:
        self.head = head
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed = False

    def advance(self, head: int) -> None:
        if head > self.head:
            self.head = head
            self._wake()

    def close(self) -> None:
        """Ends every wait with LogUnavailableError."""
        self._closed = True
        self._wake()

    async def wait_beyond(self, position: int) -> int:
        """The head, as soon as it is greater than `position`."""
        while self.head <= position:
            if self._closed:
                raise LogUnavailableError("the event log is closed")
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
