from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.lims_gateway.projects.policy import AskFailure, CacheState, is_fresh
from services.lims_gateway.projects.refresh_schedule import Attempts, due_ns

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
NOW = 1_800_000_000 * SECOND

states = st.none() | st.builds(CacheState, st.integers(NOW - 50 * HOUR, NOW), st.integers(0, 9), st.just(0))
attempts = st.builds(
    lambda last, failures: Attempts(last, len(failures), failures[-1] if failures else None),
    st.just(0) | st.integers(NOW - HOUR, NOW),
    st.lists(st.sampled_from(AskFailure), max_size=30),
)


@given(st.integers(1, 100), attempts)
def test_a_cache_is_refreshed_before_it_expires(hours: int, tried: Attempts) -> None:
    ttl, fetched = hours * HOUR, NOW
    due = due_ns(CacheState(fetched, 3, 0), ttl, None, tried)
    assert due is not None
    assert fetched < due
    assert is_fresh(CacheState(fetched, 3, 0), due, ttl)


@given(states, attempts)
def test_nobody_asks_for_what_nobody_uses(cache: CacheState | None, tried: Attempts) -> None:
    due = due_ns(cache, 24 * HOUR, None, tried)
    assert (due is None) == (cache is None or cache.count == 0)


@given(states, st.integers(1, 3600), attempts)
def test_while_somebody_follows_it_is_asked_more_often(cache: CacheState | None, seconds: int, tried: Attempts) -> None:
    watch = seconds * SECOND
    due = due_ns(cache, 24 * HOUR, watch, tried)
    assert due is not None
    unwatched = due_ns(cache, 24 * HOUR, None, tried)
    assert unwatched is None or due <= unwatched


def test_a_lims_that_fails_is_asked_less_and_less_often_and_one_that_refuses_hardly_ever() -> None:
    pauses, tried = [], Attempts()
    for _ in range(8):
        tried = tried.failed(NOW, AskFailure.UNREACHABLE)
        due = due_ns(None, 24 * HOUR, SECOND, tried)
        assert due is not None
        pauses.append((due - NOW) // SECOND)
    assert pauses == [30, 60, 120, 240, 480, 600, 600, 600]
    assert due_ns(None, 24 * HOUR, SECOND, Attempts().failed(NOW, AskFailure.REFUSED)) == NOW + HOUR
    answered = CacheState(NOW + SECOND, 3, 0)
    assert due_ns(answered, 24 * HOUR, 2 * SECOND, tried) == NOW + 3 * SECOND
