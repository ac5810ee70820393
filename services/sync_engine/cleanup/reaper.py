"""The reaper: cleans runs whose time has come, one after another, without anybody asking. Off unless configured."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from heapq import heappop, heappush

from libs.event_log.store import EventStoreError
from libs.run_tree.run_path import RunPath
from libs.service_kit.errors import LabferryError, UnavailableError
from libs.service_kit.telemetry import Logger
from services.sync_engine.cleanup.clean_run import CleanRun
from services.sync_engine.cleanup.interlocks import CleanupRules
from services.sync_engine.engine_log import BY_ITSELF
from services.sync_engine.jobs.job import Job, JobState
from services.sync_engine.jobs.retry import ANOTHERS_PAUSE
from services.sync_engine.jobs.workbench import Workbench

AGAIN = timedelta(hours=1)
"""A run that interlocks hold back is looked at again after this long, and when something happens to its jobs."""


class Reaper:
    """Owns one task and one timer. A run that isn't due costs an entry in a heap and nothing else."""

    def __init__(self, clean: CleanRun, bench: Workbench, rules: CleanupRules, logger: Logger) -> None:
        self._clean = clean
        self._locate = bench.locate
        self._clock = bench.clock
        self._rules = rules
        self._logger = logger
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._known: dict[str, tuple[datetime | None, bool]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, jobs: Iterable[Job]) -> None:
        """Begins with the jobs that the log knows. Does nothing when cleanup isn't enabled."""
        if not self._rules.enabled:
            return
        for job in jobs:
            self.notice(job)
        self._task = asyncio.create_task(self._run(), name="reaper")

    def notice(self, job: Job) -> None:
        """A job changed. Only what brings a cleanup nearer counts: a pass that matched, or the seal."""
        if not self._rules.enabled or job.state not in (JobState.VERIFIED, JobState.CLEANUP_ELIGIBLE):
            return
        if RunPath.parse(job.run).is_project:
            return
        stands = (job.verified, job.sealed)
        if self._known.get(job.job_id) == stands:
            return
        self._known[job.job_id] = stands
        if job.sealed and len(job.passes) >= self._rules.min_verify_passes:
            reached = job.passes[self._rules.min_verify_passes - 1]
            self._at(job.run, (reached + self._rules.min_age - self._clock()).total_seconds())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _at(self, run: str, seconds: float) -> None:
        moment = asyncio.get_running_loop().time() + max(0.0, seconds)
        self._due[run] = moment
        heappush(self._heap, (moment, run))
        self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            while self._heap and self._heap[0][0] <= loop.time():
                moment, run = heappop(self._heap)
                if self._due.get(run) == moment:
                    del self._due[run]
                    await self._try(run)
            pause = self._heap[0][0] - loop.time() if self._heap else None
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _try(self, run: str) -> None:
        again = AGAIN
        try:
            if (await self._locate(run)).is_staged:
                # What lies below the staging root is cleared by rules of its own.
                return
            done = await self._clean.clean(run, BY_ITSELF)
        except UnavailableError:
            # Another engine works there. Should it die, what it left is this one's to finish.
            again = ANOTHERS_PAUSE
        except (LabferryError, EventStoreError, OSError) as error:
            self._logger.warning("cleanup_failed", run=run, problem=str(error))
        except Exception as error:
            # What is wrong with one run, a lost blob or a damaged history, holds up no other.
            self._logger.error("cleanup_defect", run=run, error_id=uuid.uuid4().hex, exc_info=error)
        else:
            if done.cleaned:
                self._logger.info("run_cleaned", run=run, files=done.file_count, bytes=done.byte_count)
                return
        if run not in self._due:
            self._at(run, again.total_seconds())
