"""How a transport keeps to a bandwidth that changes while it copies."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time
from time import monotonic
from zoneinfo import ZoneInfo

from services.sync_engine.transfer.bandwidth import Bandwidth, BandwidthWindow
from tests.integration.transfer.carrying import TARGET, Carrying, Recorder, write
from tests.integration.transfer.conforming import Conforming

SIZE = 20 << 20
# rclone waits for a block of 1 MiB that is begun: not slower, or its end takes long to be felt.
SLOW_KIB = 256
MIB = 1 << 20
# So often a transport asks while the slow limit holds; those that poll take more than a second and a half for it.
HELD_FOR = 8
BERLIN = ZoneInfo("Europe/Berlin")


class LimitConformance(Conforming):
    """Over every connection."""

    def test_a_limit_that_begins_and_ends_in_the_middle(self, carrying: Carrying) -> None:
        write(carrying.source, b"a", os.urandom(SIZE))
        limit = ChangingLimit(carrying.progress)
        carrying.transport = self.open(carrying.destination, limit)
        copied = carrying.copy()
        # At 2 MiB/s it would have been more than three; what was told late may count yet.
        assert len(limit.moved) == HELD_FOR and limit.moved[-1] - limit.moved[0] < 2.5 * MIB
        # At 256 KiB/s the rest would take more than a minute, and be asked for five times a second.
        assert 0 < len(limit.asked_after) < 150
        assert carrying.progress.bytes == SIZE
        assert carrying.verify(copied).proven


class BandwidthConformance(LimitConformance):
    """Every remote of rclone is told by the same process, so one of them stands for all."""

    def test_summer_time_begins_in_the_middle(self, carrying: Carrying) -> None:
        """The window holds from 1 to 2 o'clock, and at 1:59:59 it is three."""
        write(carrying.source, b"a", os.urandom(SIZE))
        limit = SpringNight(carrying.progress)
        carrying.transport = self.open(carrying.destination, limit)
        copied = carrying.copy()
        assert limit.given == {SLOW_KIB, None}
        # At 256 KiB/s the rest would take more than a minute, and be asked for five times a second.
        assert limit.asked < HELD_FOR + 150
        assert carrying.progress.bytes == SIZE
        assert carrying.verify(copied).proven

    def test_two_jobs_share_the_limit(self, carrying: Carrying) -> None:
        """A loaded machine is slower, never faster: only a job that had the whole limit for itself could end sooner."""
        kib, size = 2048, 6 * MIB
        carrying.transport = self.open(carrying.destination, Bandwidth(upload_mbps=kib * 8 / 1024))
        other = Carrying(carrying.source.with_name("run 2"), carrying.destination, carrying.transport, job_id="other")
        other.target = TARGET.with_name("Run_2026-04-18T09-00")
        for job in (carrying, other):
            write(job.source, b"a", os.urandom(size))
        began = monotonic()
        with ThreadPoolExecutor(2) as threads:
            copied = list(threads.map(lambda job: job.copy(), (carrying, other)))
        assert monotonic() - began > 0.75 * 2 * size / (kib * 1024)
        assert carrying.verify(copied[0]).proven
        assert other.verify(copied[1]).proven


class ChangingLimit(Bandwidth):
    """2 MiB/s until as much has moved, then 256 KiB/s a few times that somebody asks, then none."""

    def __init__(self, progress: Recorder) -> None:
        super().__init__(upload_mbps=1)
        object.__setattr__(self, "progress", progress)
        object.__setattr__(self, "moved", [])
        object.__setattr__(self, "asked_after", [])

    progress: Recorder
    moved: list[int]
    asked_after: list[int]

    def kib_per_second(self, local: datetime) -> int | None:
        if not self.moved and self.progress.bytes < 2 * MIB:
            return 2048
        if len(self.moved) == HELD_FOR:
            self.asked_after.append(self.progress.bytes)
            return None
        self.moved.append(self.progress.bytes)
        return SLOW_KIB


class SpringNight(Bandwidth):
    """The real schedule on a clock of its own: Berlin, 29 March 2026. Time moves once the copy has begun."""

    def __init__(self, progress: Recorder) -> None:
        window = BandwidthWindow(frozenset({6}), time(1), time(2))
        super().__init__(upload_mbps=SLOW_KIB * 8 / 1024, schedule=(window,))
        object.__setattr__(self, "progress", progress)
        object.__setattr__(self, "asked", 0)
        object.__setattr__(self, "given", set())

    progress: Recorder
    asked: int
    given: set[int | None]

    def kib_per_second(self, local: datetime) -> int | None:
        if self.progress.bytes > 0:
            object.__setattr__(self, "asked", self.asked + 1)
        second = 59 if self.asked <= HELD_FOR else 60
        instant = datetime.fromtimestamp(datetime(2026, 3, 29, 0, 59, tzinfo=UTC).timestamp() + second, BERLIN)
        limit = super().kib_per_second(instant)
        self.given.add(limit)
        return limit
