"""RetryJob: arms a failed job again, by an operator, with a reason."""

from __future__ import annotations

from libs.event_log.store import RevisionConflictError
from services.sync_engine.engine_log import Cause, job_change, run_change
from services.sync_engine.errors import JobNotFoundError
from services.sync_engine.jobs.job import Job, decide_retry
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.run import status_by_jobs, status_change

_CONFLICTS = 20


class RetryJob:
    """The command. The run is pending again with it."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def retry(self, job_id: str, cause: Cause) -> Job:
        """JobNotFoundError; JobStateError unless the job is failed."""
        for attempt in range(_CONFLICTS):
            job = await self._load(job_id)
            events = decide_retry(job)
            record = await self._bench.log.run(job.run)
            status = status_change(record, status_by_jobs(record, [None]))
            try:
                await self._bench.log.append(cause, job_change(job, *events), run_change(record, *status))
            except RevisionConflictError:
                if attempt == _CONFLICTS - 1:
                    raise
                continue
            break
        return await self._load(job_id)

    async def _load(self, job_id: str) -> Job:
        job = await self._bench.log.job(job_id)
        if job is None:
            raise JobNotFoundError(f"there is no job {job_id}", metadata={"job_id": job_id})
        return job
