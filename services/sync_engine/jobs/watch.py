"""Follows jobs: first their present state, then each change, with progress in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from libs.event_log.projection import ProjectionRunner
from libs.service_kit.errors import UnavailableError
from services.sync_engine.jobs.news import JobNews
from services.sync_engine.jobs.progress import ProgressBoard, ProgressSnapshot
from services.sync_engine.jobs.read_model import JobFilter, PlacedJob, jobs_where


@dataclass(frozen=True, slots=True)
class WatchedJob:
    """A job as it stands; `position` is where the log was when it last changed."""

    placed: PlacedJob
    progress: ProgressSnapshot | None


class JobWatch:
    """Serves any number of watchers. A slow one gets the last state of each job, not every one in between."""

    def __init__(
        self, projections: ProjectionRunner, news: JobNews, board: ProgressBoard, draining: asyncio.Event
    ) -> None:
        self._projections = projections
        self._news = news
        self._board = board
        self._draining = draining

    async def follow(self, wanted: JobFilter) -> AsyncIterator[WatchedJob]:
        """Ends with UnavailableError when the service drains; otherwise when the caller goes away."""
        known: dict[str, PlacedJob] = {}
        fresh: dict[str, None] = {}
        wake = asyncio.Event()

        def changed(placed: PlacedJob) -> None:
            if wanted.accepts(placed.job):
                known[placed.job.job_id] = placed
                fresh[placed.job.job_id] = None
                wake.set()

        def progressed(job_id: str) -> None:
            if job_id in known:
                fresh[job_id] = None
                wake.set()

        ends = [self._news.listen(changed), self._board.listen(progressed)]
        draining = asyncio.create_task(self._draining.wait())
        try:
            for placed in _by_position(await self._projections.query(lambda c: jobs_where(c, wanted))):
                known.setdefault(placed.job.job_id, placed)
                yield WatchedJob(placed, self._board.of(placed.job.job_id))
            while True:
                waking = asyncio.create_task(wake.wait())
                try:
                    await asyncio.wait({waking, draining}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waking.cancel()
                if draining.done():
                    raise UnavailableError("the service is ending; resume with the last resume_token")
                wake.clear()
                while fresh:
                    news = _by_position(known[job_id] for job_id in fresh)
                    fresh.clear()
                    for placed in news:
                        yield WatchedJob(placed, self._board.of(placed.job.job_id))
        finally:
            draining.cancel()
            for end in ends:
                end()


def _by_position(jobs: Iterable[PlacedJob]) -> list[PlacedJob]:
    """What changed first comes first: whoever resumes behind one job has seen every change before it."""
    return sorted(jobs, key=lambda placed: placed.last_position)
