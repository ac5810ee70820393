"""Lists that lie on disk give back what was put into them."""

from __future__ import annotations

from services.sync_engine.transfer.path_order import by_path
from services.sync_engine.transfer.spilled_list import ListSorter, spilled
from services.sync_engine.transfer.transport import EntryKind, SourceEntry

# NTFS's own zero, and a second that tmpfs keeps: neither fits 64 bits in nanoseconds.
TIMES = (-11_644_473_600 * 10**9, 0, 1_700_000_000_123_456_789, 30_000_000_000 * 10**9)


def entries(count: int) -> list[SourceEntry]:
    return [
        SourceEntry(b"\xff%05d" % number, EntryKind.FILE, number, TIMES[number // 100 % 4], TIMES[number % 4], number)
        for number in range(count)
    ]


def test_any_time_of_a_file_is_kept() -> None:
    wanted = entries(5000)
    kept = spilled(SourceEntry, wanted)
    assert list(kept) == wanted
    assert (kept[0], kept[2047], kept[4999]) == (wanted[0], wanted[2047], wanted[4999])
    assert kept[1000:3000] == wanted[1000:3000]


def test_they_are_sorted() -> None:
    wanted = entries(5000)
    sorter = ListSorter(SourceEntry, by_path)
    sorter.extend(reversed(wanted))
    assert list(sorter.finish()) == wanted
