"""RetryJob, PauseJob, ResumeJob, CancelJob, SetJobPriority: one job, or every job of a scope, by an operator."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial

from libs.event_log.projection import ProjectionRunner
from services.sync_engine.engine_log import Cause, decided_anew, job_change, run_change
from services.sync_engine.errors import JobNotFoundError
from services.sync_engine.jobs.commands import ALLOWED_IN, JobCommand, decide
from services.sync_engine.jobs.job import Job, JobStateError
from services.sync_engine.jobs.job_history import evolve
from services.sync_engine.jobs.read_model import JobFilter, jobs_where
from services.sync_engine.jobs.workbench import Workbench

_PAGE = 500


class SteerJobs:
    """The commands. What they make of the run's sync_status is recorded with them."""

    def __init__(self, bench: Workbench, projections: ProjectionRunner) -> None:
        self._bench = bench
        self._projections = projections

    async def one(self, job_id: str, command: JobCommand, cause: Cause, priority: int = 0) -> Job:
        """JobNotFoundError; JobStateError when the job's state doesn't allow the command."""

        async def attempt() -> Job:
            bench = self._bench
            job = await bench.log.job(job_id)
            if job is None:
                raise JobNotFoundError(f"there is no job {job_id}", metadata={"job_id": job_id})
            events = decide(job, command, priority)
            if not events:
                return job
            after = job
            for event in events:
                after = evolve(after, event, bench.clock(), cause.actor, cause.reason)
            record, status = await bench.status_after(after)
            await bench.log.append(cause, job_change(job, *events), run_change(record, *status))
            return after

        return await decided_anew(attempt)

    async def all_of(
        self, wanted: JobFilter, command: JobCommand, cause: Cause, priority: int = 0
    ) -> AsyncGenerator[Job, None]:
        """Every job of `wanted` that is in a state for the command, as it is afterwards; others are passed over.
        RunNotFoundError, EquipmentNotConfiguredError for what neither the log nor the configuration knows."""
        await self._refuse_unknown(wanted)
        chosen = JobFilter(run=wanted.run, equipment_id=wanted.equipment_id, states=tuple(sorted(ALLOWED_IN[command])))
        after = 0
        while True:
            page = await self._projections.query(partial(jobs_where, wanted=chosen, after=after, limit=_PAGE))
            for placed in page:
                try:
                    job = await self.one(placed.job.job_id, command, cause, priority)
                except JobStateError:
                    # It moved on since the list was read.
                    continue
                if job.revision != placed.job.revision:
                    yield job
            if len(page) < _PAGE:
                return
            after = page[-1].enqueue_position

    async def _refuse_unknown(self, wanted: JobFilter) -> None:
        if await self._projections.query(partial(jobs_where, wanted=wanted, after=0, limit=1)):
            return
        if wanted.run:
            await self._bench.locate(wanted.run)
        elif wanted.equipment_id:
            self._bench.locator.equipment(wanted.equipment_id)
