"""Does the next step of a job, whatever its state asks for, and ends steps in work when the engine stops."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable
from contextlib import suppress
from datetime import datetime

from labferry.events.v1 import job_events_pb2 as events
from libs.event_log.store import EventStoreError, LeaseLostError, LogDiskFullError, RevisionConflictError
from services.sync_engine.jobs.failure import Failure, failure_message
from services.sync_engine.jobs.gate_watch import GateWatch
from services.sync_engine.jobs.job import PROVEN_STATES, UNPROVEN_STATES, Job, JobState, WaitCondition
from services.sync_engine.jobs.retry import ANOTHERS_PAUSE, SEAL_PAUSE, waits_for_room
from services.sync_engine.jobs.scheduler import StepEnd
from services.sync_engine.jobs.seal_step import SealStep
from services.sync_engine.jobs.sweep_step import SweepStep
from services.sync_engine.jobs.transfer_step import TransferStep
from services.sync_engine.jobs.verify_step import VerifyStep
from services.sync_engine.jobs.work_in_hand import WorkInHand
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.secrets.purpose import working_for
from services.sync_engine.transfer.system_error import shortage
from services.sync_engine.transfer.transfer_control import StopReason
from services.sync_engine.transfer.transport import FailureKind


class Runner:
    """The scheduler's `Step`. Every step begins from the log, never from what somebody remembered."""

    def __init__(self, bench: Workbench, gates: GateWatch, in_hand: WorkInHand) -> None:
        self._bench = bench
        self._in_hand = in_hand
        self._transfer = TransferStep(bench, gates, in_hand)
        self._verify = VerifyStep(bench, in_hand)
        self._seal = SealStep(bench, in_hand)
        self._sweep = SweepStep(bench, in_hand)
        self._stopping = False

    async def step(self, job_id: str) -> StepEnd:
        """Brings the job as far as it can go now."""
        bench = self._bench
        known = await bench.log.job(job_id)
        if known is None:
            return StepEnd(-1)
        with working_for(f"job {job_id}"):
            return await self._own_steps(known)

    async def _own_steps(self, known: Job) -> StepEnd:
        bench, job_id = self._bench, known.job_id
        async with bench.owned.over(job_id, known.equipment_id) as mine:
            if not mine:
                return StepEnd(known.revision, bench.clock() + ANOTHERS_PAUSE)
            try:
                if _waits_for_room(known):
                    # Each attempt that begins for nothing would leave its events on that very disk.
                    await bench.threads.run(bench.blobs.require_room_sync)
                end = await self._steps(known)
            except LeaseLostError:
                # Whatever this engine thought of the job, another may have it by now.
                return StepEnd(known.revision, bench.clock() + ANOTHERS_PAUSE)
            except LogDiskFullError as full:
                return await self._wait_for_room(job_id, full)
            if end.again is None and not bench.owned.holds(job_id):
                # Its work ended for that, and nothing was recorded: if nobody else takes the job, no event comes.
                return StepEnd(end.revision, bench.clock() + ANOTHERS_PAUSE)
            return end

    async def _steps(self, job: Job) -> StepEnd:
        bench, job_id = self._bench, job.job_id
        again: datetime | None = None
        while not self._stopping:
            job = await bench.log.job(job_id) or job
            try:
                again = await self._one(job)
            except RevisionConflictError:
                # Somebody's command came in between; the step begins anew from what the log says now.
                continue
            except EventStoreError:
                raise
            except Exception as error:  # noqa: BLE001 -- a defect ends this attempt and is told, not the engine
                again = await self._end_by_defect(job_id, error)
                return StepEnd(job.revision, again)
            after = await bench.log.job(job_id) or job
            if after.revision == job.revision or not _has_more(after):
                return StepEnd(after.revision, again)
        return StepEnd(job.revision)

    def heed(self, job: Job) -> None:
        """Ends the work of a job that an operator took out of the engine's hands."""
        if job.state is JobState.PAUSED:
            self._in_hand.stop(job.job_id, StopReason.PAUSED)
        elif job.state is JobState.CANCELLED:
            self._in_hand.stop(job.job_id, StopReason.CANCELLED)

    async def drain(self, ended: Awaitable[None], limit: float) -> None:
        """Files in flight are finished, up to `limit` seconds; then work is ended, and at last left behind.

        `ended` ends when every step has.
        """
        self._stopping = True
        self._in_hand.wind_down()
        waiting = asyncio.ensure_future(ended)
        for seconds, next_measure in (
            (limit, self._in_hand.stop_all),
            (self._in_hand.end_seconds, self._in_hand.give_up),
        ):
            await asyncio.wait({waiting}, timeout=seconds)
            if waiting.done():
                break
            next_measure()
        await waiting
        self._bench.logger.info("jobs_drained")

    async def recover(self, job: Job) -> None:
        """A job that was running when its engine died is queued again; nothing it landed is lost. One that another
        engine works on stays its own."""
        async with self._bench.owned.over(job.job_id, job.equipment_id) as mine:
            if mine:
                await self._bench.append(job, events.JobRequeued(cause="engine_restarted"))

    async def _wait_for_room(self, job_id: str, full: LogDiskFullError) -> StepEnd:
        """Nothing of the step is recorded. That it waits may be: a small event finds room where evidence doesn't."""
        bench = self._bench
        job = await bench.log.job(job_id)
        if job is None:
            return StepEnd(-1)
        bench.logger.warning("state_disk_full", job=job_id, problem=str(full))
        wait = waits_for_room(job, bench.clock())
        told = _waits_for_room(job) and job.state is not JobState.RUNNING
        if job.state in UNPROVEN_STATES | PROVEN_STATES and not told:
            with suppress(LogDiskFullError, RevisionConflictError):
                job = await bench.conclude(job, wait)
        return StepEnd(job.revision, bench.clock() + wait.pause.ToTimedelta())

    async def _one(self, job: Job) -> datetime | None:
        match job.state:
            case JobState.QUEUED:
                return await self._transfer.take(job)
            case JobState.RUNNING:
                # It is this engine's now, so the one that began it has lost it.
                await self._bench.append(job, events.JobRequeued(cause="lease_expired"))
                return self._bench.clock()
            case JobState.AWAITING_VERIFY:
                return await self._verify.take(job)
            case JobState.CANCELLED:
                return await self._sweep.take(job)
            case state if state in PROVEN_STATES:
                return await self._seal.take(job)
            case _:
                return None

    async def _end_by_defect(self, job_id: str, error: Exception) -> datetime | None:
        """What is proven already doesn't fail: its step is tried again, and until then the job says why it waits."""
        bench, error_id = self._bench, uuid.uuid4().hex
        bench.logger.error("job_defect", job=job_id, error_id=error_id, exc_info=error)
        job = await bench.log.job(job_id)
        if job is None:
            return None
        if job.state in UNPROVEN_STATES:
            if isinstance(error, OSError) and (short := shortage(error)) is not None:
                return await bench.fail(job, short)
            failure = Failure(FailureKind.INTERNAL, f"internal error {error_id}; the service's log has the details")
            await bench.conclude(job, events.JobFailed(failure=failure_message(failure)))
            return None
        again = bench.clock() + SEAL_PAUSE
        if job.state in PROVEN_STATES:
            # The same words each time: only the first is recorded.
            detail = f"sealing: internal error ({type(error).__name__}); the service's log has the details"
            await bench.hold(job, WaitCondition.OPERATOR, detail, again)
        return again


def _waits_for_room(job: Job) -> bool:
    return job.wait is not None and job.wait.condition is WaitCondition.STATE_DISK_FULL


def _has_more(job: Job) -> bool:
    """Whether the next step can be taken at once."""
    if job.state is JobState.CANCELLED:
        return not job.swept
    if job.state is JobState.AWAITING_VERIFY or job.state in PROVEN_STATES:
        return job.wait is None
    return False
