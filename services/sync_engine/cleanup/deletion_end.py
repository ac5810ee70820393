"""How a deletion ended: held until the log has it, whatever is wrong with the log meanwhile (SPEC §4, Cleanup)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from google.protobuf.message import Message

from labferry.events.v1 import job_events_pb2, run_events_pb2
from libs.event_log.store import LeaseLostError, LogDiskFullError, LogUnavailableError, RevisionConflictError
from libs.run_tree.creation_record import SyncStatus
from services.sync_engine.cleanup.deletion import Remaining
from services.sync_engine.cleanup.interlocks import InterlockName
from services.sync_engine.cleanup.permission import evidence_jobs
from services.sync_engine.cleanup.remaining import RemainingFiles, remaining_message
from services.sync_engine.engine_log import Cause, decided_anew, job_change, run_change
from services.sync_engine.jobs.job import Job, JobState
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.run import OpenCleanup, status_change
from services.sync_engine.transfer.system_error import shown

AGAIN_SECONDS = 5.0
"""So long after a try that failed comes the next."""

_PASSING = (LogUnavailableError, LogDiskFullError, RevisionConflictError)


@dataclass(slots=True)
class Tally:
    """What a deletion came to so far. `refused` are files that were not what the ticket says; `gone` are those that a
    deletion that was cut off, or somebody else since, removed."""

    file_count: int = 0
    byte_count: int = 0
    gone_count: int = 0
    gone_byte_count: int = 0
    refused: set[bytes] = field(default_factory=set)
    remaining: RemainingFiles = field(default_factory=RemainingFiles)
    cache_deleted: bool = False

    def refuse(self, files: Sequence[Remaining]) -> None:
        self.refused.update(file.path for file in files)
        self.remaining.add(files)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`cleaned`: nothing of the run's data is left here. `remaining` are the first of the files that are. `gone`: as of
    a Tally."""

    cleaned: bool
    file_count: int
    byte_count: int
    remaining: Sequence[Remaining]
    gone_count: int
    gone_byte_count: int


@dataclass(frozen=True, slots=True)
class DeletionEnd:
    """What is to be recorded of one deletion, under the lease of `lead`. `interrupted`: another engine, or an earlier
    life of this one, began it, and nobody was left to tell of it."""

    run: str
    opened: OpenCleanup
    evidence: Sequence[run_events_pb2.CleanupEvidence]
    tally: Tally
    lead: Job
    cause: Cause
    interrupted: bool


class EndNotRecordedError(Exception):
    """The lease was lost, or the engine ends, before the log took it."""

    def __init__(self, end: DeletionEnd) -> None:
        super().__init__(f"how the deletion of {end.run} ended is not recorded")
        self.end = end


class DeletionEnds:
    """Records them. What can't be recorded now is tried again every few seconds, as long as the engine lives; after
    that the next engine looks at what is left."""

    def __init__(self, bench: Workbench, again_seconds: float) -> None:
        self._bench = bench
        self._again_seconds = again_seconds
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """The engine ends: what waits is tried once more."""
        self._stopping.set()

    async def record(self, end: DeletionEnd) -> Outcome:
        """For who holds the lease. EndNotRecordedError."""
        while True:
            try:
                return await self.record_now(end)
            except LeaseLostError as lost:
                raise EndNotRecordedError(end) from lost
            except _PASSING as error:
                await self._pause(end, str(error))

    async def record_under_new_lease(self, end: DeletionEnd) -> Outcome:
        """As `record`, for who lost the lease. An engine that has it by now may record it first."""
        lead = end.lead
        while True:
            try:
                async with self._bench.owned.over(lead.job_id, lead.equipment_id, in_slot=False) as mine:
                    if mine:
                        return await self.record(end)
                problem = f"another engine has job {lead.job_id}"
            except (EndNotRecordedError, LogUnavailableError) as error:
                problem = str(error)
            await self._pause(end, problem)

    async def record_now(self, end: DeletionEnd) -> Outcome:
        """One try. Errors of the log."""
        return await decided_anew(partial(self._append, end))

    async def _pause(self, end: DeletionEnd, problem: str) -> None:
        if self._stopping.is_set():
            raise EndNotRecordedError(end)
        self._bench.logger.warning("cleanup_end_not_recorded_yet", run=end.run, problem=problem)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._again_seconds):
                await self._stopping.wait()

    async def _append(self, end: DeletionEnd) -> Outcome:
        bench, tally = self._bench, end.tally
        record, jobs = await bench.log.run(end.run), await evidence_jobs(bench, end.opened)
        if record.open_cleanup != end.opened:
            # An append whose answer got lost, or another engine, was quicker.
            return _outcome(tally, cleaned=all(job.state is JobState.CLEANED for job in jobs))
        doubted = [job.destination for job in jobs if job.state is not JobState.CLEANUP_ELIGIBLE]
        # Copies of which one was found not to match are no place to point to for data that is gone here.
        cleaned = not tally.remaining.count and not doubted
        ended = run_events_pb2.RunCleanupEnded(
            run=end.run,
            cleaned=cleaned,
            file_count=tally.file_count,
            byte_count=tally.byte_count,
            evidence=end.evidence,
            remaining=[remaining_message(r) for r in tally.remaining.first],
            remaining_count=tally.remaining.count,
            interrupted=end.interrupted,
            cache_deleted=tally.cache_deleted,
            gone_count=tally.gone_count,
            gone_byte_count=tally.gone_byte_count,
        )
        status = status_change(record, SyncStatus.CLEANED) if cleaned else ()
        of_job: Message = job_events_pb2.JobCleaned() if cleaned else _held(tally, doubted)
        changes = [job_change(job, of_job) for job in jobs if job.state is JobState.CLEANUP_ELIGIBLE]
        fence = bench.owned.fence(end.lead.job_id)
        await bench.log.append(end.cause, run_change(record, ended, *status), *changes, fence=fence)
        return _outcome(tally, cleaned=cleaned)


def _outcome(tally: Tally, *, cleaned: bool) -> Outcome:
    return Outcome(
        *(cleaned, tally.file_count, tally.byte_count, tally.remaining.first),
        *(tally.gone_count, tally.gone_byte_count),
    )


def _held(tally: Tally, doubted: Sequence[str]) -> job_events_pb2.JobCleanupHeld:
    if not tally.remaining.count:
        return job_events_pb2.JobCleanupHeld(
            interlocks=[InterlockName.FRESH_READ_BACK.value],
            detail=f"the copy at {', '.join(doubted)} was found not to match while the local data went",
        )
    first = tally.remaining.first[0]
    more = f" and {tally.remaining.count - 1} more" if tally.remaining.count > 1 else ""
    return job_events_pb2.JobCleanupHeld(
        interlocks=["files_left"], detail=f"still here: {shown(first.path)} ({first.why}){more}"
    )
