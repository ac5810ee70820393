"""Leases over jobs: one block at a time has a job, and nobody takes another's fence away."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import pytest
import structlog

from libs.event_log.local_leases import LocalLeases
from services.sync_engine.jobs.ownership import LeasedOwnership, LeaseTerms
from services.sync_engine.jobs.workbench import Workbench


def _engine(leases: LocalLeases, engine_id: str, slots: int = 2) -> LeasedOwnership:
    lost: list[str] = []
    return LeasedOwnership(leases, engine_id, lambda _: slots, lost.append, structlog.get_logger(), LeaseTerms(30.0))


@pytest.fixture
def sleep(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets the machine sleep for so many seconds, which the monotonic clock doesn't count."""
    slept, read = [0.0], time.clock_gettime

    def of_both(clock: int) -> float:
        return read(clock) + (slept[0] if clock == time.CLOCK_BOOTTIME else 0.0)

    monkeypatch.setattr(time, "clock_gettime", of_both)
    return lambda seconds: slept.append(slept.pop() + seconds)


async def test_a_job_is_not_surely_held_after_the_machine_slept(sleep: Callable[[float], None]) -> None:
    engine = _engine(LocalLeases(), "a")
    async with engine.over("job", "E") as mine:
        assert (mine, engine.holds("job")) == (True, True)
        sleep(31.0)
        assert not engine.holds("job")


def test_evidence_grows_old_while_the_machine_sleeps(sleep: Callable[[float], None]) -> None:
    (monotonic,) = [field.default for field in dataclasses.fields(Workbench) if field.name == "monotonic"]
    before = monotonic()
    sleep(3600.0)
    assert monotonic() - before >= 3600.0


async def test_the_same_engine_does_not_take_its_own_job_a_second_time() -> None:
    engine = _engine(LocalLeases(), "a")
    async with engine.over("job", "E") as first:
        fence = engine.fence("job")
        async with engine.over("job", "E") as second:
            assert (first, second) == (True, False)
        assert engine.fence("job") == fence
    async with engine.over("job", "E") as again:
        assert again


async def test_another_engine_gets_the_job_when_it_is_let_go() -> None:
    leases = LocalLeases()
    a, b = _engine(leases, "a"), _engine(leases, "b")
    async with a.over("job", "E") as mine, b.over("job", "E") as theirs:
        assert (mine, theirs) == (True, False)
    async with b.over("job", "E") as theirs:
        assert theirs


async def test_an_equipments_slots_are_shared_by_all_engines() -> None:
    leases = LocalLeases()
    a, b = _engine(leases, "a", 1), _engine(leases, "b", 1)
    async with a.over("one", "E") as first, b.over("two", "E") as second, b.over("three", "F") as elsewhere:
        assert (first, second, elsewhere) == (True, False, True)


async def test_who_needs_no_slot_keeps_nobody_from_one_and_is_kept_by_none() -> None:
    leases = LocalLeases()
    a, b = _engine(leases, "a", 1), _engine(leases, "b", 1)
    async with a.over("one", "E", in_slot=False) as first, b.over("two", "E") as second:
        assert (first, second) == (True, True)
        assert a.holds("one")
        async with a.over("three", "E", in_slot=False) as third, b.over("one", "E", in_slot=False) as taken:
            assert (third, taken) == (True, False)
