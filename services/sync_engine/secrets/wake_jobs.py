"""What happens when the secrets service is open again: the jobs that wait for it are looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from libs.event_log.projection import ProjectionRunner
from services.sync_engine.jobs.job import WaitCondition
from services.sync_engine.jobs.read_model import jobs_waiting_for_somebody
from services.sync_engine.jobs.scheduler import Scheduler


def wake_jobs_without_secret(projections: ProjectionRunner, scheduler: Scheduler) -> Callable[[], Awaitable[None]]:
    """To be called whenever values can be had again."""

    async def opened() -> None:
        for placed in await projections.query(jobs_waiting_for_somebody):
            wait = placed.job.wait
            if wait is not None and wait.condition is WaitCondition.SECRETS_UNAVAILABLE:
                scheduler.wake_run(placed.job.run)

    return opened
