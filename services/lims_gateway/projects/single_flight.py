"""One piece of work for however many ask for it at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Whoever asks while the work is under way gets its result, or its error. One who gives up stops no other."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._flight: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        flight = self._flight
        if flight is None or flight.done():
            flight = self._flight = asyncio.create_task(self._work())
        return await asyncio.shield(flight)

    async def anew(self) -> T:
        """The result of work that begins after this call: work under way may have looked before. Whoever asks while
        that is under way shares the next."""
        if self._flight is not None and not self._flight.done():
            await asyncio.wait((self._flight,))
        return await self()

    async def close(self) -> None:
        """Ends the work that is under way."""
        if self._flight is not None and not self._flight.done():
            self._flight.cancel()
            await asyncio.wait((self._flight,))
