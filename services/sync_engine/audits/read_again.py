"""When copies that the last reading found wrong are read again, and mended: for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from libs.event_log.projection import ProjectionRunner
from services.sync_engine.audits.read_model import due_again
from services.sync_engine.jobs.failure import met_what_is_no_folder
from services.sync_engine.jobs.job import Job, JobState
from services.sync_engine.jobs.making_way import Slot
from services.sync_engine.jobs.workbench import Workbench


@dataclass(frozen=True, slots=True)
class NextReading:
    """`words` are one plain sentence. `time` None: it is due, or isn't to be told; not before it, if it is."""

    words: str
    time: datetime | None = None


class ReadAgain:
    """Asks the read model of the copies. `slot` is how an equipment stands."""

    def __init__(
        self, projections: ProjectionRunner, bench: Workbench, slot: Callable[[str], Slot], interval: timedelta
    ) -> None:
        self._projections = projections
        self._bench = bench
        self._slot = slot
        self._interval = interval

    async def of(self, jobs: Sequence[Job]) -> Mapping[str, NextReading]:
        """By job, of those whose last reading failed."""
        ids = [job.job_id for job in jobs]
        due = await self._projections.query(lambda c: due_again(c, ids, self._interval))
        return {job.job_id: self._next(job, due[job.job_id]) for job in jobs if job.job_id in due}

    def _next(self, job: Job, due: datetime | None) -> NextReading:
        if self._bench.destination(job) is None:
            return NextReading(f"{job.destination} is not in the configuration any more, so that it isn't read again")
        and_then = self._and_then(job)
        if self._slot(job.equipment_id) is Slot.CLOSED:
            return NextReading(f"it is read again when {job.equipment_id} is resumed{and_then}")
        if due is None:
            return NextReading(f"it is read again as soon as {job.equipment_id} has time for it{and_then}")
        return NextReading(f"it is read again after {due:%Y-%m-%dT%H:%M:%SZ}{and_then}", due)

    def _and_then(self, job: Job) -> str:
        if self._bench.why_suspected(job.equipment_id, job.destination):
            return ", and nothing is put back there before it is trusted again"
        if job.failure is not None and met_what_is_no_folder(job.failure):
            return ", in vain as long as that is in the way there"
        if job.state is JobState.CLEANED:
            return ", and only what lies here again can be put back, for the local data was deleted"
        return ", and what the run here still holds as it was proven is put back"
