"""RetryJob: arms a failed job again, by an operator, with a reason."""

from __future__ import annotations

from services.sync_engine.engine_log import Cause, decided_anew, job_change, run_change
from services.sync_engine.errors import JobNotFoundError
from services.sync_engine.jobs.job import Job, decide_retry
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.run import status_by_jobs, status_change


class RetryJob:
    """The command. The run is pending again with it."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def retry(self, job_id: str, cause: Cause) -> Job:
        """JobNotFoundError; JobStateError unless the job is failed."""

        async def attempt() -> None:
            job = await self._load(job_id)
            events = decide_retry(job)
            record = await self._bench.log.run(job.run)
            status = status_change(record, status_by_jobs(record, [None]))
            await self._bench.log.append(cause, job_change(job, *events), run_change(record, *status))

        await decided_anew(attempt)
        return await self._load(job_id)

    async def _load(self, job_id: str) -> Job:
        job = await self._bench.log.job(job_id)
        if job is None:
            raise JobNotFoundError(f"there is no job {job_id}", metadata={"job_id": job_id})
        return job
