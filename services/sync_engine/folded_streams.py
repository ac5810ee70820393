"""Streams as they fold up to now, kept in memory where this process is the only one that appends to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from libs.event_log.event import RecordedEvent

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class ReadMark:
    """`clean` while nobody appended to the stream since the read began. None equals another reader's."""

    clean: bool = True


class FoldedStreams(Generic[T]):
    """Never behind the log: what is known is given only while no append to the stream is under way, and grows with each
    append. The oldest entries make room for new ones."""

    def __init__(
        self, revision: Callable[[T], int], evolve: Callable[[T, RecordedEvent], T], most: int = 10_000
    ) -> None:
        self._revision = revision
        self._evolve = evolve
        self._most = most
        self._known: dict[str, T] = {}
        self._appending: Counter[str] = Counter()
        self._marks: dict[str, list[ReadMark]] = {}

    def get(self, stream: str) -> T | None:
        """None when it has to be read."""
        if stream in self._appending:
            return None
        return self._known.get(stream)

    @contextmanager
    def reading(self, stream: str) -> Iterator[ReadMark]:
        """Around a read whose result may be kept if its mark is clean at the end."""
        mark = ReadMark(stream not in self._appending)
        self._marks.setdefault(stream, []).append(mark)
        try:
            yield mark
        finally:
            marks = self._marks[stream]
            marks.remove(mark)
            if not marks:
                del self._marks[stream]

    def keep(self, stream: str, folded: T) -> None:
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[stream] = folded

    @contextmanager
    def appending(self, streams: Sequence[str]) -> Iterator[None]:
        """Around an append, whatever comes of it."""
        for stream in streams:
            self._appending[stream] += 1
            for mark in self._marks.get(stream, ()):
                mark.clean = False
        try:
            yield
        except BaseException:
            # It may have been recorded all the same.
            for stream in streams:
                self._known.pop(stream, None)
            raise
        finally:
            for stream in streams:
                self._appending[stream] -= 1
                if not self._appending[stream]:
                    del self._appending[stream]

    def appended(self, events: Iterable[RecordedEvent]) -> None:
        """What was recorded, in the order of the log."""
        for event in events:
            folded = self._known.get(event.stream)
            if folded is None or event.revision <= self._revision(folded):
                continue
            if event.revision == self._revision(folded) + 1:
                self._known[event.stream] = self._evolve(folded, event)
            else:
                # Another append's events come in between, and are told later.
                del self._known[event.stream]
