"""The job as a pure state machine over its events: what each makes of it, and after which states it may follow."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.message import Message
from msgspec.structs import replace

from labferry.events.v1 import job_events_pb2 as events
from services.sync_engine.jobs.failure import Failure, failure_of, failure_of_pass
from services.sync_engine.jobs.job import (
    BEFORE_CLEANUP,
    ENDED_STATES,
    PROVEN_STATES,
    REPAIRING,
    SYNC_STATUSES,
    UNPROVEN_STATES,
    WAIT_CONDITIONS,
    Job,
    JobState,
    Wait,
    WaitCondition,
)
from services.sync_engine.transfer.transport import FailureKind

_MOST_PASSES = 100


class JobHistoryError(Exception):
    """A job's events contradict each other; the log is damaged or was written by a defective engine."""


def queued_job(event: events.JobQueued, at: datetime) -> Job:
    return Job(
        job_id=event.job_id,
        run=event.run,
        equipment_id=event.equipment_id,
        destination=event.destination,
        amendment=event.amendment,
        amends_job_id=event.amends_job_id,
        priority=event.priority,
        enqueued=at,
    )


_ALLOWED: dict[type[Message], frozenset[JobState]] = {
    events.JobStarted: frozenset({JobState.QUEUED}),
    events.JobRequeued: frozenset({JobState.RUNNING}),
    events.JobFilesLanding: frozenset({JobState.RUNNING}),
    events.JobCopied: frozenset({JobState.RUNNING}),
    events.JobVerified: frozenset({JobState.AWAITING_VERIFY}) | PROVEN_STATES,
    events.JobVerificationFailed: frozenset({JobState.AWAITING_VERIFY}) | PROVEN_STATES,
    events.JobSealed: PROVEN_STATES,
    events.JobWaiting: UNPROVEN_STATES | PROVEN_STATES,
    events.JobAttemptFailed: UNPROVEN_STATES,
    events.JobFailed: UNPROVEN_STATES,
    events.JobRearmed: frozenset({JobState.FAILED}),
    events.JobPaused: UNPROVEN_STATES,
    events.JobResumed: frozenset({JobState.PAUSED}),
    events.JobCancelled: UNPROVEN_STATES | {JobState.PAUSED, JobState.FAILED},
    events.JobSwept: frozenset({JobState.CANCELLED}),
    events.JobPriorityChanged: frozenset(JobState) - ENDED_STATES,
    events.JobFilesScrubbed: PROVEN_STATES,
    events.JobCopyRepaired: PROVEN_STATES,
    events.JobRepairLanded: PROVEN_STATES,
    events.JobRepairEnded: PROVEN_STATES,
    events.JobCleanupHeld: frozenset({JobState.VERIFIED, JobState.CLEANUP_ELIGIBLE}),
    events.JobCleanupEligible: frozenset({JobState.VERIFIED, JobState.CLEANUP_ELIGIBLE}),
    events.JobCleaned: frozenset({JobState.CLEANUP_ELIGIBLE}),
}


def evolve(job: Job | None, event: Message, at: datetime, by: str = "", reason: str = "") -> Job:
    """The job after one more event, which `by` caused. JobHistoryError when the event can't follow on what came
    before."""
    if job is None:
        if not isinstance(event, events.JobQueued):
            raise JobHistoryError(f"{type(event).__name__} without a job before it")
        return queued_job(event, at)
    allowed = _ALLOWED.get(type(event))
    if allowed is None or job.state not in allowed:
        raise JobHistoryError(f"{type(event).__name__} on job {job.job_id}, which is {job.state}")
    after = _paused(job, at, by, reason) if isinstance(event, events.JobPaused) else _after(job, event, at)
    return replace(after, revision=job.revision + 1)


def _paused(job: Job, at: datetime, by: str, reason: str) -> Job:
    going_on = JobState.QUEUED if job.state is JobState.RUNNING else job.state
    return replace(job, state=JobState.PAUSED, paused_from=going_on, paused_at=at, paused_by=by, pause_reason=reason)


def _after(job: Job, event: Message, at: datetime) -> Job:
    match event:
        case events.JobStarted():
            return replace(job, state=JobState.RUNNING, attempt=event.attempt, next_attempt=None, wait=None)
        case events.JobRequeued():
            return replace(job, state=JobState.QUEUED)
        case events.JobFilesLanding():
            # What differed was set aside before anything landed: what lies there from now on is another copy.
            return replace(job, landing_blobs=(*job.landing_blobs, event.batch_blob), differing_blob="")
        case events.JobCopied():
            return replace(
                job,
                state=JobState.AWAITING_VERIFY,
                manifest_blob=event.manifest_blob,
                files_blob=event.files_blob,
                file_count=event.file_count,
                byte_count=event.byte_count,
                differing_blob="",
            )
        case events.JobVerified():
            return replace(_verified(job, event, at), unmended="")
        case events.JobVerificationFailed():
            unproven = job.state is JobState.AWAITING_VERIFY
            state = JobState.VERIFIED if job.state is JobState.CLEANUP_ELIGIBLE else job.state
            given_up = _given_up(job, event)
            return replace(
                job,
                state=state,
                verify_passes=0,
                passes=(),
                mismatches=job.mismatches + unproven,
                differing_blob=event.differing_blob if unproven else job.differing_blob,
                max_stream_bytes=max(job.max_stream_bytes, event.max_stream_bytes),
                failure=failure_of_pass(event, given_up),
                given_up=given_up,
            )
        case events.JobSealed():
            sealed = SYNC_STATUSES.from_proto(event.sync_status)
            return replace(
                job,
                sealed_status=sealed,
                sealed_overrides=event.override_count,
                receipt_blob=event.receipt_blob,
                wait=None,
                # What kept it from being sealed. What a reading found wrong stays until one finds it right.
                failure=None if job.verify_passes else job.failure,
            )
        case events.JobFilesScrubbed() | events.JobCopyRepaired() | events.JobRepairLanded():
            return job
        case events.JobRepairEnded():
            return replace(job, unmended=event.problem)
        case events.JobCleanupHeld():
            return _held_from_cleanup(job, event, at)
        case events.JobCleanupEligible():
            return replace(
                job, state=JobState.CLEANUP_ELIGIBLE, cleanup_hold=None, cleanup_interlocks=(), deletion_begun=True
            )
        case events.JobCleaned():
            return replace(job, state=JobState.CLEANED, cleanup_hold=None, cleanup_interlocks=())
        case events.JobWaiting():
            return _waiting(job, event, at)
        case events.JobAttemptFailed():
            return _attempt_failed(job, event, at)
        case events.JobFailed():
            return replace(job, state=JobState.FAILED, failure=failure_of(event.failure), next_attempt=None, wait=None)
        case events.JobRearmed():
            return replace(job, state=JobState.QUEUED, network_failures=0, tool_failures=0, mismatches=0, failure=None)
        case events.JobResumed():
            return replace(
                job,
                state=job.paused_from or JobState.QUEUED,
                paused_from=None,
                paused_at=None,
                paused_by="",
                pause_reason="",
            )
        case events.JobCancelled():
            return replace(job, state=JobState.CANCELLED, next_attempt=None, wait=None, swept=job.attempt == 0)
        case events.JobSwept():
            return replace(job, swept=True)
        case events.JobPriorityChanged():
            return replace(job, priority=event.priority)
        case _:
            raise JobHistoryError(f"no rule for {type(event).__name__}")


def _attempt_failed(job: Job, event: events.JobAttemptFailed, at: datetime) -> Job:
    failure = failure_of(event.failure)
    return replace(
        job,
        state=JobState.QUEUED,
        failure=failure,
        failed_at=at,
        next_attempt=event.next_attempt_time.ToDatetime(tzinfo=at.tzinfo),
        backoff=event.pause.ToTimedelta() if event.HasField("pause") else None,
        wait=None,
        network_failures=job.network_failures + (failure.kind is FailureKind.NETWORK),
        tool_failures=job.tool_failures + (failure.kind is FailureKind.TOOL_FAILED),
        mismatches=mismatches_with(job, failure),
    )


def _given_up(job: Job, event: events.JobVerificationFailed) -> tuple[str, ...]:
    """Other readings than the engine's own repair nothing: what was given up before stays so."""
    if event.occasion in REPAIRING:
        return tuple(event.given_up)
    wrong = {*event.report.missing, *event.report.differing}
    return tuple(path for path in job.given_up if path in wrong)


def mismatches_with(job: Job, failure: Failure) -> int:
    """How often this job's data arrived as something else, this failure of its present step included. What is found
    by reading back is counted when that is recorded; a tool can also notice it while it copies."""
    return job.mismatches + (failure.kind is FailureKind.HASH_MISMATCH and job.state is JobState.RUNNING)


def _verified(job: Job, event: events.JobVerified, at: datetime) -> Job:
    if event.occasion == BEFORE_CLEANUP:
        return job
    state = JobState.VERIFIED if job.state is JobState.AWAITING_VERIFY else job.state
    return replace(
        job,
        state=state,
        verify_passes=job.verify_passes + 1,
        passes=(*job.passes, at)[:_MOST_PASSES],
        verified=at,
        max_stream_bytes=max(job.max_stream_bytes, event.max_stream_bytes),
        failure=None,
        wait=None,
        given_up=(),
    )


def _held_from_cleanup(job: Job, event: events.JobCleanupHeld, at: datetime) -> Job:
    hold = Wait(WaitCondition.CLEANUP_INTERLOCK, at, f"{', '.join(event.interlocks)}: {event.detail}")
    return replace(job, state=JobState.VERIFIED, cleanup_hold=hold, cleanup_interlocks=tuple(event.interlocks))


def _waiting(job: Job, event: events.JobWaiting, at: datetime) -> Job:
    condition = WAIT_CONDITIONS.from_proto(event.condition)
    same = job.wait is not None and job.wait.condition is condition
    wait = Wait(
        condition=condition,
        since=job.wait.since if same and job.wait else at,
        detail=event.detail,
        next_try=event.next_try_time.ToDatetime(tzinfo=at.tzinfo) if event.HasField("next_try_time") else None,
        pause=event.pause.ToTimedelta() if event.HasField("pause") else None,
    )
    failure = failure_of(event.failure) if event.HasField("failure") else job.failure
    state = JobState.QUEUED if job.state is JobState.RUNNING else job.state
    return replace(job, state=state, wait=wait, failure=failure, next_attempt=None)
