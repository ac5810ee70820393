"""The scheduler: per equipment, oldest first, by event and by time; a step that hangs holds up nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from services.sync_engine.jobs.scheduler import Scheduler, StepEnd
from services.sync_engine.jobs.work import Work


def _now() -> datetime:
    return datetime.now(UTC)


def _work(job_id: str, place: int, equipment: str = "E", **fields: Any) -> Work:
    work = Work(
        job_id=job_id,
        run=f"{equipment}/P/Runs/Run_{job_id}",
        equipment_id=equipment,
        destination="d",
        priority=0,
        place=place,
        revision=0,
    )
    return replace(work, **fields)


class Steps:
    """Records what was begun; a step ends when its gate is opened."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.began = asyncio.Condition()
        self.known: dict[str, Work] = {}
        self.scheduler: Scheduler | None = None

    async def step(self, job_id: str) -> StepEnd:
        async with self.began:
            self.begun.append(job_id)
            self.began.notify_all()
        await self.gates.setdefault(job_id, asyncio.Event()).wait()
        assert self.scheduler is not None
        self.scheduler.notice(replace(self.known[job_id], revision=1, over=True))
        return StepEnd(1)

    def tell(self, work: Work) -> None:
        assert self.scheduler is not None
        self.known[work.job_id] = work
        self.scheduler.notice(work)

    async def until(self, *wanted: str) -> None:
        async with asyncio.timeout(10), self.began:
            await self.began.wait_for(lambda: self.begun == list(wanted))

    async def until_so_many(self, count: int) -> None:
        async with asyncio.timeout(10), self.began:
            await self.began.wait_for(lambda: len(self.begun) >= count)

    def begun_before(self, job_id: str) -> list[str]:
        """What has begun so far, and then this one."""
        return [*(b for b in self.begun if b != job_id), job_id]

    def open_all(self) -> None:
        for job_id in self.known:
            self.end(job_id)

    def end(self, job_id: str) -> None:
        self.gates.setdefault(job_id, asyncio.Event()).set()


class _CountingEntries(dict[str, Any]):
    """Counts how often one looks at an entry, or at all of them."""

    lookups = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.lookups += 1
        return super().get(key, default)

    def values(self) -> Any:
        self.lookups += len(self)
        return super().values()


@asynccontextmanager
async def _scheduling(steps: Steps, *, in_all: int = 16, **max_parallel: int) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(steps.step, max_parallel, _now, structlog.get_logger(), in_all=in_all)
    steps.scheduler = scheduler
    scheduler.start([])
    try:
        yield scheduler
    finally:
        steps.open_all()
        await scheduler.stop()


async def test_one_at_a_time_oldest_first_and_higher_priority_before() -> None:
    steps = Steps()
    async with _scheduling(steps, E=1):
        steps.tell(_work("a", 1))
        await steps.until("a")
        steps.tell(_work("c", 3))
        steps.tell(_work("b", 2))
        steps.tell(_work("urgent", 4, priority=5))
        steps.end("a")
        await steps.until("a", "urgent")
        steps.end("urgent")
        await steps.until("a", "urgent", "b")
        steps.end("b")
        await steps.until("a", "urgent", "b", "c")


async def test_a_priority_that_changes_while_a_job_waits_changes_its_turn() -> None:
    steps = Steps()
    async with _scheduling(steps, E=1):
        for place, job_id in enumerate(("first", "a", "b", "c")):
            steps.tell(_work(job_id, place))
        await steps.until("first")
        steps.tell(_work("c", 3, priority=1, revision=1))
        steps.tell(_work("a", 1, priority=-1, revision=1))
        for ended, begun in (("first", "c"), ("c", "b"), ("b", "a")):
            steps.end(ended)
            await steps.until(*steps.begun_before(begun))


async def test_a_step_that_hangs_holds_up_no_other_equipment() -> None:
    steps = Steps()
    async with _scheduling(steps, in_all=1, E=1, F=1) as scheduler:
        steps.tell(_work("hangs", 1))
        await steps.until("hangs")
        for number in range(5):
            steps.tell(_work(f"f{number}", 2 + number, "F"))
            await steps.until("hangs", *(f"f{n}" for n in range(number + 1)))
            steps.end(f"f{number}")
        assert scheduler.jobs_in_work("E") == {"hangs"}


async def test_max_parallel_and_equipment_that_is_not_configured() -> None:
    steps = Steps()
    async with _scheduling(steps, E=2) as scheduler:
        for number, job_id in enumerate(("a", "b", "c")):
            steps.tell(_work(job_id, number))
        steps.tell(_work("x", 9, "UNKNOWN"))
        await steps.until("a", "b")
        steps.end("a")
        await steps.until("a", "b", "c")
        assert scheduler.jobs_in_work("UNKNOWN") == frozenset()
        assert not scheduler.serves("UNKNOWN")


async def test_all_jobs_in_work_are_bounded_beyond_one_for_each_equipment() -> None:
    steps = Steps()
    async with _scheduling(steps, in_all=4, E=3, F=3, G=3) as scheduler:
        place = 0
        for equipment in "EFG":
            for number in range(3):
                place += 1
                steps.tell(_work(f"{equipment}{number}", place, equipment))
        await steps.until_so_many(4)
        counts = sorted(len(scheduler.jobs_in_work(e)) for e in "EFG")
        assert counts == [1, 1, 2]
        steps.end(steps.begun[0])
        await steps.until_so_many(5)
        assert sum(len(scheduler.jobs_in_work(e)) for e in "EFG") == 4


async def test_a_paused_equipment_begins_nothing_until_it_is_resumed() -> None:
    steps = Steps()
    async with _scheduling(steps, E=1, F=1) as scheduler:
        scheduler.pause_equipment("E", True)
        steps.tell(_work("e", 1))
        steps.tell(_work("f", 2, "F"))
        await steps.until("f")
        assert scheduler.jobs_in_work("E") == frozenset()
        scheduler.pause_equipment("E", False)
        await steps.until("f", "e")


async def test_time_starts_what_waits_for_it_and_holds_no_slot_meanwhile() -> None:
    steps = Steps()
    async with _scheduling(steps, E=1) as scheduler:
        soon = _now() + timedelta(milliseconds=300)
        steps.tell(_work("later", 1, pause=0.3))
        steps.tell(_work("gate", 2, pause=3600.0))
        steps.tell(_work("now", 3))
        await steps.until("now")
        assert scheduler.next_try("later") is not None
        steps.end("now")
        await steps.until("now", "later")
        assert _now() >= soon


async def test_a_runs_event_wakes_its_waiting_job() -> None:
    steps = Steps()
    async with _scheduling(steps, E=1) as scheduler:
        work = _work("a", 1, pause=3600.0)
        steps.tell(work)
        scheduler.wake_run("somebody else's")
        assert steps.begun == []
        scheduler.wake_run(work.run)
        await steps.until("a")


async def test_a_destination_that_is_back_wakes_the_jobs_that_go_there() -> None:
    steps = Steps()
    async with _scheduling(steps, E=2) as scheduler:
        steps.tell(_work("there", 1, pause=3600.0))
        steps.tell(_work("elsewhere", 2, pause=3600.0, destination="other"))
        scheduler.wake_destination("E", "d")
        await steps.until("there")
        assert scheduler.next_try("elsewhere") is not None


async def test_what_happens_while_a_step_looks_makes_it_look_again() -> None:
    looks = 0
    looking, looked_again = asyncio.Event(), asyncio.Event()
    go_on = asyncio.Event()

    async def step(job_id: str) -> StepEnd:
        nonlocal looks
        looks += 1
        if looks == 2:
            looked_again.set()
        looking.set()
        await go_on.wait()
        return StepEnd(0, _now() + timedelta(hours=1))

    scheduler = Scheduler(step, {"E": 1}, _now, structlog.get_logger(), in_all=1)
    work = _work("a", 1)
    scheduler.start([work])
    async with asyncio.timeout(10):
        await looking.wait()
        scheduler.wake_run(work.run)
        go_on.set()
        await looked_again.wait()
    await scheduler.stop()


async def test_a_step_that_ends_of_a_pause_after_its_end_is_followed_by_another() -> None:
    looks = 0
    looking, looked_again = asyncio.Event(), asyncio.Event()
    ended = asyncio.Event()

    async def step(job_id: str) -> StepEnd:
        nonlocal looks
        looks += 1
        if looks == 2:
            looked_again.set()
        looking.set()
        await ended.wait()
        # Cut short: nothing was recorded, so no event will come.
        return StepEnd(0)

    scheduler = Scheduler(step, {"E": 1, "F": 1}, _now, structlog.get_logger(), in_all=1)
    scheduler.start([_work("a", 1)])
    async with asyncio.timeout(10):
        await looking.wait()
        scheduler.pause_equipment("E", True)
        scheduler.pause_equipment("E", False)
        ended.set()
        await looked_again.wait()
    await scheduler.stop()
    assert looks == 2


async def test_news_that_is_older_than_what_the_step_did_does_not_begin_it_anew() -> None:
    """A step records that the job began and then that it waits; the news of the first comes late."""
    begun: list[str] = []
    ended = asyncio.Event()
    scheduler: Scheduler

    async def step(job_id: str) -> StepEnd:
        begun.append(job_id)
        scheduler.notice(replace(work, revision=1))
        ended.set()
        return StepEnd(2)

    scheduler = Scheduler(step, {"E": 1}, _now, structlog.get_logger(), in_all=1)
    work = _work("a", 1)
    scheduler.start([work])
    async with asyncio.timeout(10):
        await ended.wait()
        while scheduler.jobs_in_work("E"):
            await asyncio.sleep(0)
    scheduler.notice(replace(work, revision=1))
    scheduler.notice(replace(work, revision=2, pause=3600.0))
    next_try = scheduler.next_try("a")
    assert next_try is not None
    assert next_try > _now() + timedelta(minutes=59)
    # Whatever was ready has begun by the time another job has.
    other = _work("b", 2, "E")
    begun_both = asyncio.Event()
    ended = begun_both
    scheduler.notice(other)
    async with asyncio.timeout(10):
        await begun_both.wait()
    await scheduler.stop()
    assert begun == ["a", "b"]


async def test_a_defect_in_one_step_ends_no_other() -> None:
    begun: list[str] = []
    second = asyncio.Event()

    async def step(job_id: str) -> StepEnd:
        begun.append(job_id)
        if job_id == "bad":
            raise ZeroDivisionError("a defect")
        second.set()
        return StepEnd(0)

    scheduler = Scheduler(step, {"E": 1}, _now, structlog.get_logger(), in_all=1)
    scheduler.start([_work("bad", 1), _work("good", 2)])
    async with asyncio.timeout(10):
        await second.wait()
    await scheduler.stop()
    assert begun == ["bad", "good"]


async def test_a_hundred_thousand_jobs_in_backoff_are_never_looked_at_one_by_one() -> None:
    """Starting one more job beside them touches no other: counted, not timed."""
    steps = Steps()
    async with _scheduling(steps, E=1) as scheduler:
        for number in range(100_000):
            scheduler.consider(_work(f"w{number}", number, pause=3600.0 + number))
        await asyncio.sleep(0)
        touched = 0
        monitor = _CountingEntries(scheduler._entries)
        scheduler._entries = monitor  # type: ignore[assignment]
        steps.tell(_work("now", 100_001))
        await steps.until("now")
        touched = monitor.lookups
        assert touched < 20
