"""Starts each job's next step as soon as its event or time has come: per equipment, oldest first, without polling."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from libs.service_kit.telemetry import Logger
from services.sync_engine.jobs.job import ENDED_STATES, PROVEN_STATES, Job

_AFTER_DEFECT = timedelta(minutes=1)


@dataclass(slots=True)
class _Entry:
    job: Job
    place: int
    not_before: float = 0.0
    task: asyncio.Task[datetime | None] | None = None
    woken: bool = False


Step = Callable[[Job], Awaitable[datetime | None]]
"""Does a job's next step. Returns when to look at it again although no event says so; None: when an event comes."""


class Scheduler:
    """Owns the tasks of all jobs in work.

    `max_parallel` gives each configured equipment's slots; jobs of other equipment wait. Equipment are independent: a
    step that hangs holds a slot of its own equipment alone.
    """

    def __init__(self, step: Step, max_parallel: dict[str, int], clock: Callable[[], datetime], logger: Logger) -> None:
        self._step = step
        self._max_parallel = max_parallel
        self._clock = clock
        self._logger = logger
        self._entries: dict[str, _Entry] = {}
        self._wake = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self, jobs: Sequence[tuple[Job, int]]) -> None:
        for job, place in jobs:
            self.consider(job, place)
        self._owner = asyncio.create_task(self._run(), name="scheduler")

    def notice(self, job: Job, place: int) -> None:
        """A job was made or changed; `place` orders jobs of the same priority."""
        if job.job_id not in self._entries and (job.state in ENDED_STATES or job.sealed):
            return
        self.consider(job, place)

    def consider(self, job: Job, place: int) -> None:
        """The job may have work to do: its step is called at least once."""
        entry = self._entries.get(job.job_id)
        if entry is None:
            entry = self._entries[job.job_id] = _Entry(job, place)
        elif job.revision < entry.job.revision:
            return
        entry.job = job
        if entry.task is None:
            entry.not_before = self._moment(_due(job))
            if job.state in ENDED_STATES:
                del self._entries[job.job_id]
        self._wake.set()

    def wake_run(self, run: str) -> None:
        """Something that jobs of this run may wait for has happened: they are looked at now."""
        for entry in self._entries.values():
            if entry.job.run == run:
                entry.not_before = 0.0
                # A step in work may have looked before it happened: it is followed by another look.
                entry.woken = entry.task is not None
        self._wake.set()

    def next_try(self, job_id: str) -> datetime | None:
        """When a waiting job is looked at again; None when it isn't known to wait."""
        entry = self._entries.get(job_id)
        if entry is None or entry.task is not None:
            return None
        pause = entry.not_before - asyncio.get_running_loop().time()
        return self._clock() + timedelta(seconds=pause) if 0 < pause < _NEVER else None

    def serves(self, equipment_id: str) -> bool:
        """Whether the equipment is configured: jobs of any other wait for that."""
        return equipment_id in self._max_parallel

    def holds_slot(self, job_id: str) -> bool:
        entry = self._entries.get(job_id)
        return entry is not None and entry.task is not None

    def slot_holders(self, equipment_id: str) -> list[str]:
        """Jobs of an equipment that are in work."""
        return [i for i, e in self._entries.items() if e.task is not None and e.job.equipment_id == equipment_id]

    async def stop(self) -> None:
        """Starts nothing more and waits for the steps in work, which were told to end."""
        self._stopping = True
        self._wake.set()
        if self._owner is not None:
            await self._owner
        tasks = [e.task for e in self._entries.values() if e.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    def _moment(self, due: datetime | None) -> float:
        """A wall clock time as a moment of the loop's clock, which no clock change moves."""
        if due is None:
            return 0.0
        return asyncio.get_running_loop().time() + max(0.0, (due - self._clock()).total_seconds())

    async def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            pause = self._start_what_is_due()
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _start_what_is_due(self) -> float | None:
        """Returns the seconds until the next entry is due; None when only an event can change anything."""
        now = asyncio.get_running_loop().time()
        taken: dict[str, int] = {}
        waiting: dict[str, list[_Entry]] = {}
        earliest: float | None = None
        for entry in self._entries.values():
            equipment_id = entry.job.equipment_id
            if entry.task is not None:
                taken[equipment_id] = taken.get(equipment_id, 0) + 1
            elif entry.not_before > now:
                if entry.not_before < _NEVER:
                    earliest = entry.not_before if earliest is None else min(earliest, entry.not_before)
            else:
                waiting.setdefault(equipment_id, []).append(entry)
        for equipment_id, entries in waiting.items():
            free = self._max_parallel.get(equipment_id, 0) - taken.get(equipment_id, 0)
            for entry in sorted(entries, key=lambda e: (-e.job.priority, e.place))[: max(0, free)]:
                entry.task = asyncio.create_task(self._do(entry), name=f"job {entry.job.job_id}")
        return None if earliest is None else max(0.0, earliest - now)

    async def _do(self, entry: _Entry) -> datetime | None:
        again: datetime | None = None
        revision = entry.job.revision
        try:
            again = await self._step(entry.job)
        except Exception as error:
            self._logger.error("job_step_failed", job=entry.job.job_id, exc_info=error)
            again = self._clock() + _AFTER_DEFECT
        finally:
            entry.task = None
            self._settle(entry, again, moved=entry.job.revision != revision)
            self._wake.set()
        return again

    def _settle(self, entry: _Entry, again: datetime | None, *, moved: bool) -> None:
        job = entry.job
        if job.state in ENDED_STATES or (job.state in PROVEN_STATES and again is None):
            self._entries.pop(job.job_id, None)
        elif entry.woken:
            entry.woken = False
            entry.not_before = 0.0
        elif again is not None:
            entry.not_before = self._moment(again)
        else:
            # A step that changed nothing and names no time waits for an event; anything else may have more to do.
            entry.not_before = self._moment(_due(job)) if moved else _NEVER


_NEVER = float("inf")


def _due(job: Job) -> datetime | None:
    """When the job's own record says that it may go on; None: now."""
    if job.next_attempt is not None:
        return job.next_attempt
    return job.wait.next_try if job.wait is not None else None
