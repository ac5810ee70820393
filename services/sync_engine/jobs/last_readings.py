"""Of each file of a copy its last reading: a scrub never ends, so that there are ever more readings of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from heapq import merge
from itertools import groupby
from typing import TypeVar

import msgspec

from services.sync_engine.transfer.path_order import by_path
from services.sync_engine.transfer.spilled_list import ListSorter, SpilledList, spilled

R = TypeVar("R", bound=msgspec.Struct)


def last_of_each(record: type[R], readings: int, read: Callable[[int], Iterable[R]], file_count: int) -> SpilledList[R]:
    """Of each path the record of the last reading that holds it, sorted by path. `read` gives what the reading of that
    number holds, the oldest being 0. `file_count`: how many paths there are in all; once so many were found, older
    readings can tell nothing and aren't looked at. For worker threads."""
    found = spilled(record, ())
    begin, step = readings, 1
    while begin > 0 and len(found) < file_count:
        end, begin = begin, max(0, begin - step)
        step *= 2
        older = ListSorter(record, by_path)
        for number in range(begin, end):
            older.extend(read(number))
        both = merge(older.finish(), found, key=by_path)
        found = spilled(record, (deque(of_file, 1)[0] for _, of_file in groupby(both, by_path)))
    return found
