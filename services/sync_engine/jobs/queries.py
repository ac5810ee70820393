"""What is asked about jobs."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from libs.event_log.projection import ProjectionRunner
from libs.event_log.store import EventStore, ForeignCursorError, PositionBeyondHeadError
from libs.service_kit.errors import FieldViolation, InvalidRequestError
from services.sync_engine.engine_log import EngineLog
from services.sync_engine.errors import JobNotFoundError
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.read_model import JobFilter, jobs_where, page_token, position_of


@dataclass(frozen=True, slots=True)
class JobPage:
    """`next_page_token` is empty on the last page."""

    jobs: list[Job]
    next_page_token: str


class JobQueries:
    """Reads streams and the read model; changes nothing."""

    def __init__(self, log: EngineLog, projections: ProjectionRunner) -> None:
        self._log = log
        self._projections = projections

    @property
    def _store(self) -> EventStore:
        return self._log.store

    async def job(self, job_id: str, *, upto_position: int | None = None) -> Job:
        """JobNotFoundError when there is, or was, none."""
        job = await self._log.job(job_id, upto_position=upto_position)
        if job is None:
            raise JobNotFoundError(f"there is no job {job_id}", metadata={"job_id": job_id})
        return job

    async def page(self, wanted: JobFilter, size: int, token: str) -> JobPage:
        after = position_of(token)
        placed = await self._projections.query(lambda c: jobs_where(c, wanted, after=after, limit=size + 1))
        more = len(placed) > size
        return JobPage([p.job for p in placed[:size]], page_token(placed[size - 1].enqueue_position) if more else "")

    def resume_token(self, position: int) -> str:
        return base64.urlsafe_b64encode(f"{self._store.store_id}:{position}".encode()).decode()

    def resume_position(self, token: str) -> int:
        """0 for no token. ForeignCursorError for one of another log, PositionBeyondHeadError for one of its future."""
        if not token:
            return 0
        try:
            text = base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
            store_id, _, digits = text.rpartition(":")
            position = int(digits)
        except (binascii.Error, ValueError) as error:
            violation = FieldViolation("resume_token", "was not given out by this service")
            raise InvalidRequestError(violation) from error
        if store_id != self._store.store_id:
            raise ForeignCursorError(self._store.store_id, store_id)
        if position > self._store.head:
            raise PositionBeyondHeadError(position, self._store.head)
        return position
