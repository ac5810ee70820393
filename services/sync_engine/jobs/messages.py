"""Jobs as protobuf messages, with the answer to "why is it not moving?"."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from labferry.sync.v1 import job_pb2
from libs.service_kit.enum_names import ProtoNames
from services.sync_engine.jobs.failure import failure_message
from services.sync_engine.jobs.job import JOB_STATES, WAIT_CONDITIONS, Job, Wait
from services.sync_engine.jobs.progress import ProgressSnapshot
from services.sync_engine.jobs.waiting import WHO_CAN_CLEAR, WaitingOn
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.transport import ProgressPhase

_PHASES = ProtoNames(ProgressPhase, job_pb2.ProgressPhase, "PROGRESS_PHASE")


class JobMessages:
    """Jobs as they stand in this engine now."""

    def __init__(self, waiting: WaitingOn, bench: Workbench) -> None:
        self._waiting = waiting
        self._bench = bench

    def of(self, job: Job) -> job_pb2.Job:
        message = job_message(job, self._waiting.of(job))
        message.destination_suspected = bool(self._bench.why_suspected(job.equipment_id, job.destination))
        message.repair_problem = self._bench.why_unmended(job)
        return message


def job_message(job: Job, waits: Sequence[Wait]) -> job_pb2.Job:
    """What its events say. `waits` say why it isn't moving."""
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
        amends_job_id=job.amends_job_id or None,
    )
    if job.failure is not None:
        message.failure.CopyFrom(failure_message(job.failure))
    if job.next_attempt is not None:
        message.next_attempt_time.CopyFrom(_stamp(job.next_attempt))
    if job.verified is not None:
        message.verified_time.CopyFrom(_stamp(job.verified))
    for wait in waits:
        message.waiting_on.append(_waiting(wait))
    return message


def _waiting(wait: Wait) -> job_pb2.Waiting:
    message = job_pb2.Waiting(
        condition=WAIT_CONDITIONS.to_proto(wait.condition),
        since=_stamp(wait.since),
        who_can_clear=WHO_CAN_CLEAR[wait.condition],
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
