"""Of each file of a copy the last reading counts, and no more readings are gone through than that takes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.sync_engine.jobs.last_readings import last_of_each


class Read(msgspec.Struct, frozen=True, array_like=True):
    path: bytes
    reading: int


FILES = [b"%03d" % number for number in range(12)]


@given(st.lists(st.sets(st.sampled_from(FILES))))
def test_the_last_reading_of_each_file_counts(readings: Sequence[set[bytes]]) -> None:
    def read(number: int) -> list[Read]:
        return [Read(path, number) for path in readings[number]]

    last = {path: number for number, paths in enumerate(readings) for path in paths}
    assert list(last_of_each(Read, len(readings), read, len(FILES))) == [Read(p, last[p]) for p in sorted(last)]


def test_a_scrub_that_went_round_a_hundred_times_is_not_gone_through_again() -> None:
    portions = [FILES[start : start + 3] for start in range(0, len(FILES), 3)]
    looked_at = []

    def read(number: int) -> list[Read]:
        looked_at.append(number)
        return [Read(path, number) for path in portions[number % len(portions)]]

    count = 100 * len(portions)
    found = last_of_each(Read, count, read, len(FILES))
    assert [one.path for one in found] == FILES
    assert min(one.reading for one in found) == count - len(portions)
    assert len(looked_at) < 3 * len(portions)
