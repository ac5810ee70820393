"""Time-ordered identifiers (UUID version 7): in a unique index they cost far less than random ones."""

from __future__ import annotations

import os
from collections.abc import Callable

_RANDOM_BYTES = 8
_POOLED = 512
_VARIANT_DIGITS = "89ab" * 4
_STEPS_A_MILLISECOND = 1 << 12


class Uuid7Source:
    """Makes UUIDs that grow from one to the next, even within a millisecond and when the clock steps back."""

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._random_bytes = random_bytes
        # Asking the system for a few thousand bytes takes hardly longer than for eight.
        self._random_tails: list[str] = []
        self._last_tick = -1

    def next(self, time_ns: int) -> str:
        """A UUIDv7 for a time in nanoseconds since the epoch, exact to a 4096th of a millisecond."""
        tick = time_ns * _STEPS_A_MILLISECOND // 1_000_000
        if tick <= self._last_tick:
            tick = self._last_tick + 1
        self._last_tick = tick
        if not self._random_tails:
            self._random_tails = _random_tails(self._random_bytes(_POOLED * _RANDOM_BYTES).hex())
        return f"{tick >> 28:08x}-{tick >> 12 & 0xFFFF:04x}-7{tick & 0xFFF:03x}-{self._random_tails.pop()}"


def _random_tails(digits: str) -> list[str]:
    """The last two groups of UUIDs, from sixteen random digits each; two bits of the first say the variant."""
    return [
        f"{_VARIANT_DIGITS[int(digits[at], 16)]}{digits[at + 1 : at + 4]}-{digits[at + 4 : at + 16]}"
        for at in range(0, len(digits), 2 * _RANDOM_BYTES)
    ]
