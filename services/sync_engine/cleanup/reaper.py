"""The reaper: cleans runs whose time has come, without anybody asking. Off unless configured."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heappop, heappush

from libs.event_log.store import EventStoreError
from libs.run_tree.creation_record import SyncStatus
from libs.run_tree.run_path import RunPath
from libs.service_kit.errors import LabferryError, UnavailableError
from libs.service_kit.telemetry import Logger
from services.sync_engine.cleanup.back_off import AGAIN, BackOff
from services.sync_engine.cleanup.clean_run import CleanRun
from services.sync_engine.cleanup.interlocks import CleanupRules
from services.sync_engine.engine_log import BY_ITSELF
from services.sync_engine.jobs.job import Job, JobState, JobStateError
from services.sync_engine.jobs.retry import ANOTHERS_PAUSE
from services.sync_engine.jobs.workbench import Workbench


@dataclass(slots=True)
class _Lane:
    """One equipment's runs by when they are looked at, on the loop's clock."""

    due: dict[str, float] = field(default_factory=dict)
    heap: list[tuple[float, str]] = field(default_factory=list)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def at(self, run: str, seconds: float) -> None:
        moment = asyncio.get_running_loop().time() + max(0.0, seconds)
        self.due[run] = moment
        heappush(self.heap, (moment, run))
        self.wake.set()

    def pop_due(self) -> str | None:
        now = asyncio.get_running_loop().time()
        while self.heap and self.heap[0][0] <= now:
            moment, run = heappop(self.heap)
            if self.due.get(run) == moment:
                del self.due[run]
                return run
        return None

    def pause(self) -> float | None:
        """Seconds until the next is due; None: only an event brings one."""
        return self.heap[0][0] - asyncio.get_running_loop().time() if self.heap else None


class Reaper:
    """Owns one task and one timer an equipment: a destination that hangs or is slow holds up no other's runs. A run
    that isn't due costs an entry in a heap and nothing else; one that can't be cleaned is looked at again when
    something happens to its jobs, or later; the less changes, the later where that reads its data."""

    def __init__(self, clean: CleanRun, bench: Workbench, rules: CleanupRules, logger: Logger) -> None:
        self._clean = clean
        self._locate = bench.locate
        self._destination = bench.destination
        self._clock = bench.clock
        self._rules = rules
        self._logger = logger
        self._known: dict[str, tuple[datetime | None, SyncStatus | None]] = {}
        self._lanes: dict[str, _Lane] = {}
        self._back_off = BackOff()

    def start(self, jobs: Iterable[Job]) -> None:
        """Begins with the jobs that the log knows."""
        for job in jobs:
            self.notice(job)

    def notice(self, job: Job) -> None:
        """A job changed. Only what brings a cleanup nearer counts: a pass that matched, or the seal, at a destination
        that is configured. Does nothing when cleanup isn't enabled."""
        if not self._rules.enabled or job.state not in (JobState.VERIFIED, JobState.CLEANUP_ELIGIBLE):
            return
        if RunPath.parse(job.run).is_project or self._destination(job) is None:
            return
        stands = (job.verified, job.sealed_status)
        if self._known.get(job.job_id) == stands:
            return
        self._known[job.job_id] = stands
        self._back_off.forget(job.run)
        if job.sealed and len(job.passes) >= self._rules.min_verify_passes:
            reached = job.passes[self._rules.min_verify_passes - 1]
            pause = (reached + self._rules.min_age - self._clock()).total_seconds()
            self._lane(job.equipment_id).at(job.run, pause)

    async def close(self) -> None:
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _lane(self, equipment_id: str) -> _Lane:
        lane = self._lanes.get(equipment_id)
        if lane is None:
            lane = self._lanes[equipment_id] = _Lane()
            lane.task = asyncio.create_task(self._work(lane), name=f"reaper of {equipment_id}")
        return lane

    async def _work(self, lane: _Lane) -> None:
        while True:
            lane.wake.clear()
            while (run := lane.pop_due()) is not None:
                await self._try(lane, run)
            try:
                async with asyncio.timeout(lane.pause()):
                    await lane.wake.wait()
            except TimeoutError:
                continue

    async def _try(self, lane: _Lane, run: str) -> None:
        try:
            if (await self._locate(run)).is_staged:
                # What lies below the staging root is cleared by rules of its own.
                return
            done = await self._clean.clean(run, BY_ITSELF)
        except UnavailableError:
            # Another engine works there. Should it die, what it left is this one's to finish.
            again = ANOTHERS_PAUSE
        except (LabferryError, JobStateError, EventStoreError, OSError) as error:
            self._logger.warning("cleanup_failed", run=run, problem=str(error))
            again = self._back_off.after(run, str(error))
        except Exception as error:
            # What is wrong with one run, a lost blob or a damaged history, holds up no other.
            self._logger.error("cleanup_defect", run=run, error_id=uuid.uuid4().hex, exc_info=error)
            again = self._back_off.after(run, str(error))
        else:
            if done.cleaned and not done.before:
                self._logger.info("run_cleaned", run=run, files=done.file_count, bytes=done.byte_count)
            if done.cleaned or done.before:
                self._back_off.forget(run)
                return
            again = self._back_off.after(run, done.outcome) if done.read_data else AGAIN
        if run not in lane.due:
            lane.at(run, again.total_seconds())
