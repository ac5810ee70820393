"""When a limit holds and how fast it lets bytes through, on clocks of our own (SPEC §4)."""

from __future__ import annotations

import threading
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from services.sync_engine.transfer.bandwidth import Bandwidth, BandwidthBrake, BandwidthWindow, SharedBandwidth
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl, TransferStoppedError

BERLIN = ZoneInfo("Europe/Berlin")
WORKDAYS = frozenset(range(5))
OFFICE = BandwidthWindow(WORKDAYS, time(8), time(18))
FRIDAY_NOON = datetime(2026, 4, 17, 12, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("mbps", "kib"), [(8, 1024), (50, 6400), (0.001, 1), (0.01, 1), (0.012, 2), (1, 128), (1000, 128000)]
)
def test_megabits_in_kib_a_second(mbps: float, kib: int) -> None:
    assert Bandwidth(mbps).kib_per_second(FRIDAY_NOON) == kib


def test_no_number_no_limit() -> None:
    assert Bandwidth(None, (OFFICE,)).kib_per_second(FRIDAY_NOON) is None


@pytest.mark.parametrize(
    ("local", "limited"),
    [
        (datetime(2026, 4, 17, 8, 0, tzinfo=BERLIN), True),
        (datetime(2026, 4, 17, 7, 59, 59, 999999, tzinfo=BERLIN), False),
        (datetime(2026, 4, 17, 17, 59, 59, 999999, tzinfo=BERLIN), True),
        (datetime(2026, 4, 17, 18, 0, tzinfo=BERLIN), False),
        (datetime(2026, 4, 18, 12, 0, tzinfo=BERLIN), False),
    ],
)
def test_a_window_holds_from_its_begin_until_before_its_end(local: datetime, limited: bool) -> None:
    assert (Bandwidth(8, (OFFICE,)).kib_per_second(local) is not None) is limited


def test_one_window_of_several_is_enough() -> None:
    night = BandwidthWindow(frozenset({5}), time(0), time(6))
    assert Bandwidth(8, (OFFICE, night)).kib_per_second(datetime(2026, 4, 18, 3, tzinfo=BERLIN)) == 1024


@pytest.mark.parametrize(
    ("days", "begin", "end"),
    [(WORKDAYS, time(8), time(8)), (WORKDAYS, time(9), time(8)), (frozenset(), time(1), time(2))],
)
def test_a_window_needs_a_day_and_an_end_after_its_begin(days: frozenset[int], begin: time, end: time) -> None:
    with pytest.raises(ValueError, match="window"):
        BandwidthWindow(days, begin, end)


def test_the_wall_clock_counts_on_the_day_that_it_changes() -> None:
    """Europe/Berlin, 29 March 2026: 02:00 becomes 03:00."""
    window = BandwidthWindow(frozenset({6}), time(3), time(4))
    bandwidth = Bandwidth(8, (window,))
    instant = datetime(2026, 3, 29, 0, 30, tzinfo=ZoneInfo("UTC"))
    limited = [bandwidth.kib_per_second((instant + timedelta(minutes=15 * n)).astimezone(BERLIN)) for n in range(8)]
    assert limited == [None, None, 1024, 1024, 1024, 1024, None, None]


def test_jobs_that_send_at_the_same_time_share_the_limit() -> None:
    shared = SharedBandwidth(Bandwidth(8))
    limits = [shared.kib_per_second(FRIDAY_NOON)]
    with shared.sending():
        limits.append(shared.kib_per_second(FRIDAY_NOON))
        with shared.sending(), shared.sending():
            limits.append(shared.kib_per_second(FRIDAY_NOON))
        limits.append(shared.kib_per_second(FRIDAY_NOON))
    assert limits == [1024, 1024, 341, 1024]
    slowest = SharedBandwidth(Bandwidth(0.001))
    with slowest.sending(), slowest.sending():
        assert slowest.kib_per_second(FRIDAY_NOON) == 1


class Clock(TransferControl):
    """Waiting moves it, so that no test waits."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.local = FRIDAY_NOON

    def monotonic(self) -> float:
        return self.now

    def local_time(self) -> datetime:
        return self.local

    def wait(self, seconds: float) -> None:
        self.raise_if_stopped()
        self.now += seconds
        self.local += timedelta(seconds=seconds)


def brake(clock: Clock, bandwidth: Bandwidth) -> BandwidthBrake:
    return BandwidthBrake(bandwidth, local_time=clock.local_time, monotonic=clock.monotonic)


def test_a_thousand_takes_last_as_long_as_the_limit_says() -> None:
    clock = Clock()
    limited = brake(clock, Bandwidth(8))
    for _ in range(1000):
        limited.take(10_240, clock)
    assert clock.now - 100 == pytest.approx(10_240_000 / (1024 * 1024), rel=0.03)


def test_one_take_larger_than_any_burst_lasts_as_long_too() -> None:
    clock = Clock()
    brake(clock, Bandwidth(8)).take(20 << 20, clock)
    assert clock.now - 100 == pytest.approx(20, rel=0.03)


def test_a_pause_is_no_credit() -> None:
    clock = Clock()
    limited = brake(clock, Bandwidth(8))
    clock.now += 3600
    limited.take(10 << 20, clock)
    assert clock.now - 3700 == pytest.approx(10, abs=0.3)


def test_without_a_limit_nothing_is_waited_for() -> None:
    clock = Clock()
    brake(clock, Bandwidth()).take(1 << 40, clock)
    brake(clock, Bandwidth(8, (BandwidthWindow(frozenset({0}), time(1), time(2)),))).take(1 << 40, clock)
    assert clock.now == 100


def test_a_window_that_ends_during_a_take_frees_it() -> None:
    clock = Clock()
    clock.local = datetime(2026, 4, 17, 17, 59, 55, tzinfo=BERLIN)
    brake(clock, Bandwidth(8, (OFFICE,))).take(100 << 20, clock)
    assert clock.now - 100 == pytest.approx(5, abs=0.3)


def test_a_window_that_begins_slows_the_next_take() -> None:
    clock = Clock()
    clock.local = datetime(2026, 4, 17, 7, 59, 59, tzinfo=BERLIN)
    limited = brake(clock, Bandwidth(8, (OFFICE,)))
    limited.take(100 << 20, clock)
    assert clock.now == 100
    clock.wait(1)
    limited.take(10 << 20, clock)
    assert clock.now - 101 == pytest.approx(10, abs=0.3)


def test_portions_are_small_where_the_limit_is_slow() -> None:
    clock = Clock()
    assert brake(clock, Bandwidth()).portion(4 << 20) == 4 << 20
    assert brake(clock, Bandwidth(8)).portion(4 << 20) == 256 << 10
    assert brake(clock, Bandwidth(0.001)).portion(4 << 20) == 256


def test_a_stop_ends_the_waiting() -> None:
    control = TransferControl()
    limited = BandwidthBrake(Bandwidth(0.001))
    reasons: list[StopReason] = []
    waiting = threading.Event()

    def take() -> None:
        waiting.set()
        try:
            limited.take(1 << 30, control)
        except TransferStoppedError as stopped:
            reasons.append(stopped.reason)

    thread = threading.Thread(target=take)
    thread.start()
    waiting.wait()
    control.stop(StopReason.PAUSED)
    thread.join(10)
    assert reasons == [StopReason.PAUSED]


def test_threads_share_one_limit() -> None:
    clock = Clock()
    limited = brake(clock, Bandwidth(8))
    threads = [threading.Thread(target=limited.take, args=(1 << 20, clock)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert clock.now - 100 >= 3.7
