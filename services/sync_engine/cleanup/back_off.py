"""When a run that could not be cleaned is looked at again: the less changes, the later. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import timedelta

AGAIN = timedelta(hours=1)
"""After a try that read no data, the first one that did, and one that came to something else than the one before."""

_AT_MOST = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class _Tries:
    outcome: Hashable
    pause: timedelta


class BackOff:
    """What the last tries of each run came to. A try may read all of the run's data, here and at every destination."""

    def __init__(self) -> None:
        self._tries: dict[str, _Tries] = {}

    def after(self, run: str, outcome: Hashable) -> timedelta:
        """The pause after one more try; twice the last one when it came to the same."""
        last = self._tries.get(run)
        pause = AGAIN if last is None or last.outcome != outcome else min(last.pause * 2, _AT_MOST)
        self._tries[run] = _Tries(outcome, pause)
        return pause

    def forget(self, run: str) -> None:
        """Something happened to the run, or it is cleaned."""
        self._tries.pop(run, None)
