"""Time-ordered identifiers (UUID version 7): in a unique index they cost far less than random ones."""

from __future__ import annotations

import os
from collections.abc import Callable

_RANDOM_BYTES = 8
_POOL_BYTES = 512 * _RANDOM_BYTES
_RANDOM_MASK = (1 << 62) - 1
_VARIANT = 0x2 << 62
_STEPS_A_MILLISECOND = 1 << 12


class Uuid7Source:
    """Makes UUIDs that grow from one to the next, even within a millisecond and when the clock steps back."""

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._random_bytes = random_bytes
        # Asking the system for a few thousand bytes takes hardly longer than for eight.
        self._pool = b""
        self._used = 0
        self._last_tick = -1

    def next(self, time_ns: int) -> str:
        """A UUIDv7 for a time in nanoseconds since the epoch, exact to a 4096th of a millisecond."""
        milliseconds, rest_ns = divmod(time_ns, 1_000_000)
        tick = milliseconds * _STEPS_A_MILLISECOND + rest_ns * _STEPS_A_MILLISECOND // 1_000_000
        if tick <= self._last_tick:
            tick = self._last_tick + 1
        self._last_tick = tick
        milliseconds, step = divmod(tick, _STEPS_A_MILLISECOND)
        low = f"{_VARIANT | self._random():016x}"
        high = f"{milliseconds:012x}"
        return f"{high[:8]}-{high[8:]}-7{step:03x}-{low[:4]}-{low[4:]}"

    def _random(self) -> int:
        if self._used == len(self._pool):
            self._pool, self._used = self._random_bytes(_POOL_BYTES), 0
        self._used += _RANDOM_BYTES
        return int.from_bytes(self._pool[self._used - _RANDOM_BYTES : self._used], "big") & _RANDOM_MASK
