"""What a recorded time that lies ahead of the clock counts as."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from services.sync_engine.audits.first_seen import FirstSeen

NOW = datetime(2026, 5, 1, tzinfo=UTC)
AHEAD = NOW + timedelta(days=400)


@dataclass
class Boot:
    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def boot() -> Boot:
    return Boot()


@pytest.fixture
def first_seen(boot: Boot) -> FirstSeen:
    return FirstSeen(lambda: NOW, boot)


def _ago(first_seen: FirstSeen, position: int) -> float:
    """In seconds."""
    return (NOW - first_seen.times()(AHEAD, position)).total_seconds()


def test_a_time_that_has_been_stands(first_seen: FirstSeen) -> None:
    assert first_seen.times()(NOW - timedelta(days=1), 7) == NOW - timedelta(days=1)


def test_one_that_lies_ahead_is_when_it_was_seen_or_the_start(first_seen: FirstSeen, boot: Boot) -> None:
    for position in (50, 60):
        boot.seconds += 100
        first_seen.note(position)
    boot.seconds += 100
    assert [_ago(first_seen, position) for position in (49, 50, 59, 60, 99)] == [300, 200, 200, 100, 100]


def test_what_was_seen_long_ago_is_rather_older_than_younger(first_seen: FirstSeen, boot: Boot) -> None:
    count = 100_000
    for position in range(1, count + 1):
        boot.seconds += 2
        first_seen.note(position)
    for position in range(1, count, 999):
        assert 0 <= _ago(first_seen, position) - 2 * (count - position) <= 6
    assert _ago(first_seen, count) == 0
