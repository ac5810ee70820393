"""When something was recorded, also where the log's times lie ahead of this machine's clock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from datetime import datetime, timedelta

_SECONDS_APART = 1.0
_MOST_KEPT = 1 << 16

TimeOf = Callable[[datetime, int], datetime]
"""The time of an event, from that which the log gives it and its position."""


class FirstSeen:
    """A clock that ran ahead once leaves its times in the log, whose order they keep up until real time is there. By
    such a time nothing would ever be due: an event that has one counts as recorded when this engine first saw it, by
    `monotonic`, a clock that nobody can set; at the engine's start if it was recorded before.

    Kept in memory, to the second; of what is long ago, less exactly, and rather as older than it is.
    """

    def __init__(self, clock: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._positions = [0]
        self._moments = [monotonic()]

    def note(self, position: int) -> None:
        """Events from this position on are seen now."""
        moment = self._monotonic()
        if moment - self._moments[-1] < _SECONDS_APART:
            return
        self._positions.append(position)
        self._moments.append(moment)
        if len(self._positions) > _MOST_KEPT:
            del self._positions[1::2], self._moments[1::2]

    def times(self) -> TimeOf:
        """None of them lies after now."""
        now, moment = self._clock(), self._monotonic()

        def time_of(recorded: datetime, position: int) -> datetime:
            if recorded <= now:
                return recorded
            seen = self._moments[bisect_right(self._positions, position) - 1]
            return now - timedelta(seconds=moment - seen)

        return time_of
