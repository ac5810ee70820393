from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from libs.event_log.uuid7 import Uuid7Source

times = st.integers(min_value=0, max_value=(1 << 48) * 1_000_000 - 1_000_000_000)


@given(times)
def test_it_is_a_version_7_uuid_of_its_time(time_ns: int) -> None:
    made = uuid.UUID(Uuid7Source().next(time_ns))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == time_ns // 1_000_000


@given(st.lists(times, min_size=2))
def test_they_grow_whatever_the_clock_does(clock: list[int]) -> None:
    source = Uuid7Source()
    made = [source.next(time_ns) for time_ns in clock]
    assert made == sorted(set(made))


def test_many_in_one_instant_differ_and_stay_near_it() -> None:
    source = Uuid7Source()
    made = [source.next(1_700_000_000_000_000_000) for _ in range(10_000)]
    assert made == sorted(set(made))
    assert uuid.UUID(made[-1]).int >> 80 <= 1_700_000_000_003
