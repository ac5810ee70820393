"""How long wrong passphrases make one wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.secrets.passphrase_attempts import FREE_ATTEMPTS, PassphraseAttempts

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def after(wrong: int) -> PassphraseAttempts:
    attempts = PassphraseAttempts()
    for _ in range(wrong):
        attempts.wrong(NOW)
    return attempts


def test_the_first_ones_are_free_and_then_it_doubles() -> None:
    assert [after(n).wait(NOW).total_seconds() for n in range(FREE_ATTEMPTS + 5)] == [0, 0, 0, 1, 2, 4, 8, 16]
    assert after(10_000).wait(NOW) == timedelta(minutes=5)
    assert after(5).wait(NOW + timedelta(seconds=3)) == timedelta(seconds=1)
    assert after(5).wait(NOW + timedelta(seconds=4)) == timedelta(0)


def test_the_right_one_clears_the_slate() -> None:
    attempts = after(9)
    attempts.right()
    assert attempts.wait(NOW) == timedelta(0)


@given(wrong=st.integers(0, 60), jump=st.timedeltas(timedelta(days=-4000), timedelta(days=4000)))
def test_no_clock_makes_anybody_wait_longer_than_five_minutes(wrong: int, jump: timedelta) -> None:
    assert timedelta(0) <= after(wrong).wait(NOW + jump) <= timedelta(minutes=5)
