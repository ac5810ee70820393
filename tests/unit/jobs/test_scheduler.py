"""The scheduler: per equipment, oldest first, by event and by time; a step that hangs holds up nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog
from msgspec.structs import replace

from services.sync_engine.jobs.job import Job, JobState, Wait, WaitCondition
from services.sync_engine.jobs.scheduler import Scheduler


def _now() -> datetime:
    return datetime.now(UTC)


def _job(job_id: str, equipment: str = "E", **fields: object) -> Job:
    job = Job(
        job_id=job_id, run=f"{equipment}/P/Runs/Run_{job_id}", equipment_id=equipment, destination="d", enqueued=_now()
    )
    return replace(job, **fields)  # type: ignore[arg-type]


class Steps:
    """Records what was begun; a step ends when its gate is opened."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.began = asyncio.Condition()
        self.scheduler: Scheduler | None = None

    async def step(self, job: Job) -> datetime | None:
        async with self.began:
            self.begun.append(job.job_id)
            self.began.notify_all()
        await self.gates.setdefault(job.job_id, asyncio.Event()).wait()
        assert self.scheduler is not None
        self.scheduler.notice(replace(job, state=JobState.FAILED, revision=job.revision + 1), 0)
        return None

    async def until(self, *wanted: str) -> None:
        async with asyncio.timeout(10), self.began:
            await self.began.wait_for(lambda: self.begun == list(wanted))

    def end(self, job_id: str) -> None:
        self.gates.setdefault(job_id, asyncio.Event()).set()


@asynccontextmanager
async def _scheduling(steps: Steps, **max_parallel: int) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(steps.step, max_parallel, _now, structlog.get_logger())
    steps.scheduler = scheduler
    scheduler.start([])
    try:
        yield scheduler
    finally:
        for gate in steps.gates.values():
            gate.set()
        await scheduler.stop()


async def test_one_at_a_time_oldest_first_and_higher_priority_before() -> None:
    steps = Steps()
    async with _scheduling(steps, E=1) as scheduler:
        scheduler.notice(_job("a"), 1)
        await steps.until("a")
        scheduler.notice(_job("c"), 3)
        scheduler.notice(_job("b"), 2)
        scheduler.notice(_job("urgent", priority=5), 4)
        steps.end("a")
        await steps.until("a", "urgent")
        steps.end("urgent")
        await steps.until("a", "urgent", "b")
        steps.end("b")
        await steps.until("a", "urgent", "b", "c")


async def test_a_step_that_hangs_holds_up_no_other_equipment() -> None:
    steps = Steps()
    async with _scheduling(steps, E=1, F=1) as scheduler:
        scheduler.notice(_job("hangs", "E"), 1)
        await steps.until("hangs")
        for number in range(5):
            scheduler.notice(_job(f"f{number}", "F"), 2 + number)
            await steps.until("hangs", *(f"f{n}" for n in range(number + 1)))
            steps.end(f"f{number}")
        assert scheduler.slot_holders("E") == ["hangs"]


async def test_max_parallel_and_equipment_that_is_not_configured() -> None:
    steps = Steps()
    async with _scheduling(steps, E=2) as scheduler:
        for number, job_id in enumerate(("a", "b", "c")):
            scheduler.notice(_job(job_id), number)
        scheduler.notice(_job("x", "UNKNOWN"), 9)
        await steps.until("a", "b")
        steps.end("a")
        await steps.until("a", "b", "c")
        assert not scheduler.holds_slot("x")


async def test_time_starts_what_waits_for_it_and_holds_no_slot_meanwhile() -> None:
    steps = Steps()
    async with _scheduling(steps, E=1) as scheduler:
        soon = _now() + timedelta(milliseconds=300)
        scheduler.notice(_job("later", next_attempt=soon), 1)
        never = Wait(WaitCondition.GATE, _now(), "closed", _now() + timedelta(hours=1))
        scheduler.notice(_job("gate", wait=never), 2)
        scheduler.notice(_job("now"), 3)
        await steps.until("now")
        assert scheduler.next_try("later") is not None
        steps.end("now")
        await steps.until("now", "later")
        assert _now() >= soon


async def test_a_runs_event_wakes_its_waiting_job() -> None:
    steps = Steps()
    async with _scheduling(steps, E=1) as scheduler:
        job = _job("a", wait=Wait(WaitCondition.GATE, _now(), "closed", _now() + timedelta(hours=1)))
        scheduler.notice(job, 1)
        scheduler.wake_run("somebody else's")
        assert steps.begun == []
        scheduler.wake_run(job.run)
        await steps.until("a")


async def test_what_happens_while_a_step_looks_makes_it_look_again() -> None:
    looks = 0
    looking, looked_again = asyncio.Event(), asyncio.Event()
    go_on = asyncio.Event()

    async def step(job: Job) -> datetime | None:
        nonlocal looks
        looks += 1
        if looks == 2:
            looked_again.set()
        looking.set()
        await go_on.wait()
        return _now() + timedelta(hours=1)

    scheduler = Scheduler(step, {"E": 1}, _now, structlog.get_logger())
    job = _job("a")
    scheduler.start([(job, 1)])
    async with asyncio.timeout(10):
        await looking.wait()
        scheduler.wake_run(job.run)
        go_on.set()
        await looked_again.wait()
    await scheduler.stop()


async def test_a_defect_in_one_step_ends_no_other() -> None:
    begun: list[str] = []
    second = asyncio.Event()

    async def step(job: Job) -> datetime | None:
        begun.append(job.job_id)
        if job.job_id == "bad":
            raise ZeroDivisionError("a defect")
        second.set()
        return None

    scheduler = Scheduler(step, {"E": 1}, _now, structlog.get_logger())
    scheduler.start([(_job("bad"), 1), (_job("good"), 2)])
    async with asyncio.timeout(10):
        await second.wait()
    await scheduler.stop()
    assert begun == ["bad", "good"]
