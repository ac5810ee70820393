"""Time-ordered identifiers (UUID version 7): in a unique index they cost far less than random ones."""

from __future__ import annotations

import secrets
from collections.abc import Callable

_RANDOM_BITS = 62
_VERSION = 0x7 << 76
_VARIANT = 0x2 << 62
_SUB_MILLISECOND_STEPS = 1 << 12


class Uuid7Source:
    """Makes UUIDs that grow from one to the next, even within a millisecond and when the clock steps back."""

    def __init__(self, random_bits: Callable[[int], int] = secrets.randbits) -> None:
        self._random_bits = random_bits
        self._last_tick = -1

    def next(self, time_ns: int) -> str:
        """A UUIDv7 for a time in nanoseconds since the epoch, exact to a 4096th of a millisecond."""
        milliseconds, rest_ns = divmod(time_ns, 1_000_000)
        tick = milliseconds * _SUB_MILLISECOND_STEPS + rest_ns * _SUB_MILLISECOND_STEPS // 1_000_000
        if tick <= self._last_tick:
            tick = self._last_tick + 1
        self._last_tick = tick
        milliseconds, step = divmod(tick, _SUB_MILLISECOND_STEPS)
        value = milliseconds << 80 | _VERSION | step << 64 | _VARIANT | self._random_bits(_RANDOM_BITS)
        digits = f"{value:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
