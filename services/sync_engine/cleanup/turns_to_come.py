"""When runs are looked at, by one clock, the first on top."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush


class TurnsToCome:
    """Each run has one turn at most. Telling the first costs nothing, however many there are."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __contains__(self, run: str) -> bool:
        return run in self._due

    def put(self, run: str, moment: float) -> None:
        """In the place of the turn that it had."""
        self._due[run] = moment
        heappush(self._heap, (moment, run))

    def drop(self, run: str) -> None:
        self._due.pop(run, None)

    def pop(self) -> str | None:
        """A run whose turn has come."""
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            moment, run = heappop(self._heap)
            if self._due.get(run) == moment:
                del self._due[run]
                return run
        return None

    def pause(self) -> float | None:
        """Seconds until the first is due; None: there is none."""
        return max(0.0, self._heap[0][0] - self._clock()) if self._heap else None
