"""The reaper: cleans runs whose time has come, without anybody asking. Off unless configured."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from libs.event_log.store import EventStoreError
from libs.run_tree.creation_record import SyncStatus
from libs.run_tree.run_path import RunPath
from libs.service_kit.errors import LabferryError, UnavailableError
from libs.service_kit.telemetry import Logger
from services.sync_engine.cleanup.back_off import AGAIN, BackOff
from services.sync_engine.cleanup.clean_run import CleanRun
from services.sync_engine.cleanup.interlocks import CleanupRules
from services.sync_engine.cleanup.turns_to_come import TurnsToCome
from services.sync_engine.engine_log import BY_ITSELF
from services.sync_engine.jobs.job import Job, JobState, JobStateError
from services.sync_engine.jobs.retry import ANOTHERS_PAUSE
from services.sync_engine.jobs.workbench import Workbench

_LOOK_SECONDS = 60.0
"""The clock on the wall may be set meanwhile: the first run that waits for a time of day is compared with it this often
at least."""


class _Lane:
    """One equipment's runs: those that wait until they are old enough, by the clock on the wall, and those that are
    tried again, by the loop's."""

    def __init__(self, clock: Callable[[], datetime], look_seconds: float) -> None:
        self.old_enough = TurnsToCome(lambda: clock().timestamp())
        self.again = TurnsToCome(asyncio.get_running_loop().time)
        self.wake = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._look_seconds = look_seconds

    def at(self, run: str, moment: datetime) -> None:
        self.again.drop(run)
        self.old_enough.put(run, moment.timestamp())
        self.wake.set()

    def after(self, run: str, pause: timedelta) -> None:
        """Unless it has a turn already."""
        if run not in self.old_enough and run not in self.again:
            self.again.put(run, asyncio.get_running_loop().time() + pause.total_seconds())

    def pop_due(self) -> str | None:
        return self.old_enough.pop() or self.again.pop()

    def pause(self) -> float | None:
        """Seconds until the next look; None: only an event brings one."""
        aging = self.old_enough.pause()
        pauses = [self.again.pause(), None if aging is None else min(aging, self._look_seconds)]
        return min((pause for pause in pauses if pause is not None), default=None)


class Reaper:
    """Owns one task and one timer an equipment: a destination that hangs or is slow holds up no other's runs. A run
    that isn't due costs an entry in a heap and nothing else; one that can't be cleaned is looked at again when
    something happens to its jobs, or later; the less changes, the later where that reads its data."""

    def __init__(
        self,
        clean: CleanRun,
        bench: Workbench,
        rules: CleanupRules,
        logger: Logger,
        *,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._clean = clean
        self._locate = bench.locate
        self._destination = bench.destination
        self._clock = bench.clock
        self._rules = rules
        self._logger = logger
        self._known: dict[str, tuple[datetime | None, SyncStatus | None, int]] = {}
        self._lanes: dict[str, _Lane] = {}
        self._back_off = BackOff()
        self._look_seconds = look_seconds

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
        stands = (job.verified, job.sealed_status, job.sealed_overrides)
        if self._known.get(job.job_id) == stands:
            return
        self._known[job.job_id] = stands
        self._back_off.forget(job.run)
        if job.sealed and len(job.passes) >= self._rules.min_verify_passes:
            reached = job.passes[self._rules.min_verify_passes - 1]
            self._lane(job.equipment_id).at(job.run, reached + self._rules.min_age)

    async def close(self) -> None:
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _lane(self, equipment_id: str) -> _Lane:
        lane = self._lanes.get(equipment_id)
        if lane is None:
            lane = self._lanes[equipment_id] = _Lane(self._clock, self._look_seconds)
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
        lane.after(run, again)
