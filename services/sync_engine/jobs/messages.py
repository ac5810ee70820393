"""Jobs as protobuf messages, with the answer to "why is it not moving?"."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from labferry.sync.v1 import job_pb2
from libs.service_kit.enum_names import ProtoNames
from services.sync_engine.jobs.job import (
    ENDED_STATES,
    JOB_STATES,
    PROVEN_STATES,
    WAIT_CONDITIONS,
    Job,
    JobState,
    Wait,
    WaitCondition,
    failure_message,
)
from services.sync_engine.jobs.progress import ProgressSnapshot
from services.sync_engine.jobs.scheduler import Scheduler
from services.sync_engine.transfer.transport import ProgressPhase

_PHASES = ProtoNames(ProgressPhase, job_pb2.ProgressPhase, "PROGRESS_PHASE")

_WHO_CAN_CLEAR = {
    WaitCondition.SLOT: "nobody",
    WaitCondition.BACKOFF: "nobody",
    WaitCondition.GATE: "operator",
    WaitCondition.DESTINATION_FULL: "it",
    WaitCondition.DESTINATION_UNREACHABLE: "it",
    WaitCondition.SOURCE_UNSETTLED: "nobody",
    WaitCondition.OPERATOR: "operator",
    WaitCondition.EQUIPMENT_NOT_CONFIGURED: "it",
}

_AT_REST = ENDED_STATES | PROVEN_STATES


def job_message(job: Job, scheduler: Scheduler | None = None) -> job_pb2.Job:
    """`scheduler` None: the job as of an earlier moment, so nothing is said about what holds it now."""
    message = job_pb2.Job(
        job_id=job.job_id,
        run=job.run,
        equipment_id=job.equipment_id,
        destination=job.destination,
        state=JOB_STATES.to_proto(job.state),
        sealed=job.sealed,
        attempt=job.attempt,
        amendment=job.amendment,
        priority=job.priority,
        verify_passes=job.verify_passes,
        manifest_sha256=job.manifest_blob,
        file_count=job.file_count,
        byte_count=job.byte_count,
        enqueue_time=_stamp(job.enqueued),
        revision=job.revision,
    )
    if job.failure is not None:
        message.failure.CopyFrom(failure_message(job.failure))
    if job.next_attempt is not None:
        message.next_attempt_time.CopyFrom(_stamp(job.next_attempt))
    if job.verified is not None:
        message.verified_time.CopyFrom(_stamp(job.verified))
    for wait in _waits(job, scheduler):
        message.waiting_on.append(_waiting(wait))
    return message


def _waits(job: Job, scheduler: Scheduler | None) -> Sequence[Wait]:
    if scheduler is not None and job.state not in _AT_REST and not scheduler.serves(job.equipment_id):
        detail = f"equipment {job.equipment_id} is not in the configuration of this engine"
        return (Wait(WaitCondition.EQUIPMENT_NOT_CONFIGURED, job.enqueued, detail),)
    if job.wait is not None:
        again = scheduler.next_try(job.job_id) if scheduler is not None else None
        return (Wait(job.wait.condition, job.wait.since, job.wait.detail, again or job.wait.next_try),)
    if job.state is not JobState.QUEUED:
        return ()
    if job.next_attempt is not None:
        why = job.failure.message if job.failure is not None else "the last attempt failed"
        return (Wait(WaitCondition.BACKOFF, job.enqueued, why, job.next_attempt),)
    if scheduler is not None and not scheduler.holds_slot(job.job_id):
        holders = [h for h in scheduler.slot_holders(job.equipment_id) if h != job.job_id]
        if holders:
            return (Wait(WaitCondition.SLOT, job.enqueued, f"job {holders[0]} of {job.equipment_id} is in work"),)
    return ()


def _waiting(wait: Wait) -> job_pb2.Waiting:
    message = job_pb2.Waiting(
        condition=WAIT_CONDITIONS.to_proto(wait.condition),
        since=_stamp(wait.since),
        who_can_clear=_WHO_CAN_CLEAR[wait.condition],
        detail=wait.detail,
    )
    if wait.next_try is not None:
        message.next_try_time.CopyFrom(_stamp(wait.next_try))
    return message


def progress_message(progress: ProgressSnapshot) -> job_pb2.JobProgress:
    message = job_pb2.JobProgress(
        phase=_PHASES.to_proto(progress.phase),
        files_done=progress.files_done,
        files_total=progress.files_total,
        bytes_done=progress.bytes_done,
        bytes_total=progress.bytes_total,
        bytes_per_second=progress.bytes_per_second,
        current_file=progress.current_file,
    )
    if progress.remaining_seconds is not None:
        message.remaining_time.FromTimedelta(timedelta(seconds=round(progress.remaining_seconds, 1)))
    return message


def _stamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
