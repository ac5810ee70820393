"""Names in the order of their paths: walking in it, and looking up in several lists at once that all have it.

Paths are compared as bytes, whole: `a`, `a.txt`, `a/b`. So a folder's content doesn't follow the folder at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

import msgspec

from services.sync_engine.transfer.spilled_list import ListSorter, SpilledList

by_path = attrgetter("path")


class HasPath(Protocol):
    """What lists in this order hold."""

    @property
    def path(self) -> bytes: ...


P = TypeVar("P", bound=HasPath)
R = TypeVar("R", bound=msgspec.Struct)


class InStep(Generic[P]):
    """Finds records of a list by paths that are asked for in that same order."""

    def __init__(self, records: Iterable[P]) -> None:
        self._records = iter(records)
        self._next = next(self._records, None)

    def at(self, path: bytes) -> P | None:
        """The record of this path; of several the first."""
        while self._next is not None and self._next.path < path:
            self._next = next(self._records, None)
        return self._next if self._next is not None and self._next.path == path else None

    def all_at(self, path: bytes) -> list[P]:
        """Every record of this path, in their order; they are passed by then."""
        found: list[P] = []
        while (record := self.at(path)) is not None:
            found.append(record)
            self._next = next(self._records, None)
        return found


def walk_in_order(
    record: type[R], listing: Callable[[bytes], Iterable[R]], is_folder: Callable[[R], bool]
) -> Iterator[R]:
    """Everything below a folder, b"", in the order of the paths. `listing` gives a folder's content in any order; one
    folder at a time is sorted."""
    path: Callable[[R], bytes] = by_path

    def opened(folder: bytes) -> Iterator[tuple[bytes, R, bool]]:
        names, folders = ListSorter(record, path), ListSorter(record, lambda one: path(one) + b"/")
        for one in listing(folder):
            names.add(one)
            if is_folder(one):
                folders.add(one)
        return _both(names.finish(), folders.finish(), path)

    above = [opened(b"")]
    while above:
        step = next(above[-1], None)
        if step is None:
            above.pop()
        elif step[2]:
            above.append(opened(path(step[1])))
        else:
            yield step[1]


def _both(
    names: SpilledList[R], folders: SpilledList[R], path: Callable[[R], bytes]
) -> Iterator[tuple[bytes, R, bool]]:
    """Each name, and where its content comes if it is a folder's; no two have the same first part."""
    itself = ((path(one), one, False) for one in names)
    return merge(itself, ((path(one) + b"/", one, True) for one in folders)) if folders else itself
