"""Why a job is not moving: the condition, since when, and when it is looked at again (ARCHITECTURE §4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from services.sync_engine.jobs.destination_watch import DestinationWatch
from services.sync_engine.jobs.job import ENDED_STATES, PROVEN_STATES, Job, JobState, Wait, WaitCondition
from services.sync_engine.jobs.scheduler import Scheduler
from services.sync_engine.transfer.destination import Destination

WHO_CAN_CLEAR = {
    WaitCondition.SLOT: "nobody",
    WaitCondition.BACKOFF: "nobody",
    WaitCondition.GATE: "operator",
    WaitCondition.DESTINATION_FULL: "it",
    WaitCondition.DESTINATION_UNREACHABLE: "it",
    WaitCondition.SOURCE_UNSETTLED: "nobody",
    WaitCondition.OPERATOR: "operator",
    WaitCondition.EQUIPMENT_NOT_CONFIGURED: "it",
    WaitCondition.EQUIPMENT_PAUSED: "operator",
    WaitCondition.CLEANUP_INTERLOCK: "operator",
    WaitCondition.SECRETS_UNAVAILABLE: "operator",
    WaitCondition.STATE_DISK_FULL: "it",
}


def recorded_waits(job: Job) -> Sequence[Wait]:
    """What the job's own events say, whatever goes on in an engine."""
    if job.state is JobState.PAUSED:
        detail = f"{job.paused_by or 'an operator'} paused it{f': {job.pause_reason}' if job.pause_reason else ''}"
        return (Wait(WaitCondition.OPERATOR, job.paused_at or job.enqueued, detail),)
    if job.wait is not None:
        return (job.wait,)
    if job.state is JobState.QUEUED and job.next_attempt is not None:
        why = job.failure.message if job.failure is not None else "the last attempt failed"
        return (Wait(WaitCondition.BACKOFF, job.failed_at or job.enqueued, why, job.next_attempt),)
    if job.cleanup_hold is not None and job.state is JobState.VERIFIED:
        return (job.cleanup_hold,)
    return ()


class WaitingOn:
    """What holds jobs back in this engine now. `paused` gives the pause of an equipment that operators hold, and
    `destination` that of a job, None when it isn't configured."""

    def __init__(
        self,
        scheduler: Scheduler,
        watch: DestinationWatch,
        paused: Callable[[str], Wait | None],
        destination: Callable[[Job], Destination | None],
    ) -> None:
        self._destination = destination
        self._scheduler = scheduler
        self._watch = watch
        self._paused = paused

    def of(self, job: Job) -> Sequence[Wait]:
        """Empty while the job moves, or needs nothing more."""
        if job.state in ENDED_STATES or (job.state in PROVEN_STATES and self._destination(job) is None):
            # A cleanup that a destination was taken out of the configuration for doesn't wait for it any more.
            return ()
        if job.state is not JobState.PAUSED and (job.state not in PROVEN_STATES or self._is_to_be_sealed(job)):
            if not self._scheduler.serves(job.equipment_id):
                detail = f"equipment {job.equipment_id} is not in the configuration of this engine"
                return (Wait(WaitCondition.EQUIPMENT_NOT_CONFIGURED, job.enqueued, detail),)
            held = self._paused(job.equipment_id)
            if held is not None:
                return (held,)
        recorded = recorded_waits(job)
        if recorded:
            return tuple(self._with_next_try(job, wait) for wait in recorded)
        return self._slot(job)

    def _with_next_try(self, job: Job, wait: Wait) -> Wait:
        if wait.condition is WaitCondition.DESTINATION_UNREACHABLE:
            again = self._watch.next_probe(job.equipment_id, job.destination)
        else:
            again = self._scheduler.next_try(job.job_id)
        return replace(wait, next_try=again or wait.next_try)

    def _slot(self, job: Job) -> Sequence[Wait]:
        to_be_sealed = self._is_to_be_sealed(job) and self._scheduler.may_begin(job.job_id)
        if job.state is not JobState.QUEUED and not to_be_sealed:
            return ()
        in_work = self._scheduler.jobs_in_work(job.equipment_id)
        if not in_work or job.job_id in in_work:
            return ()
        detail = f"job {min(in_work)} of {job.equipment_id} is in work"
        if to_be_sealed:
            detail = f"it is to be sealed; {detail}"
        return (Wait(WaitCondition.SLOT, job.verified or job.enqueued, detail),)

    def _is_to_be_sealed(self, job: Job) -> bool:
        """Without a pass that matched there is no seal, whatever is due."""
        return job.state in PROVEN_STATES and job.verify_passes > 0 and self._scheduler.has_work(job.job_id)
