"""Reading some files of a copy back, within its destination's bandwidth, and what is recorded when all matched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from labferry.events.v1 import job_events_pb2 as events
from libs.event_log.blob_store import BlobStore
from libs.run_tree.run_path import RunPath
from services.sync_engine.audits.braked_progress import BrakedProgress
from services.sync_engine.jobs.file_list import evidence_lines
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.progress import JobProgressMeter
from services.sync_engine.transfer.bandwidth import BandwidthBrake
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import CopiedFile, VerifyOutcome


@dataclass(frozen=True, slots=True)
class PortionReading:
    """`work` is for a thread; `meter` hears how far it is."""

    meter: JobProgressMeter
    work: Callable[[], VerifyOutcome]


def portion_reading(
    job: Job,
    place: Destination,
    files: Sequence[CopiedFile],
    whole: Sequence[CopiedFile],
    brake: BandwidthBrake,
    control: TransferControl,
) -> PortionReading:
    """Of `files` among the `whole` copy, up to the size that an operator once allowed for it."""
    meter = JobProgressMeter(lambda: None)
    target = RunPath.parse(job.run).below_equipment

    def work() -> VerifyOutcome:
        return place.transport.verify(
            target,
            files,
            control=control,
            progress=BrakedProgress(meter, brake, control),
            max_stream_bytes=job.max_stream_bytes,
            whole=whole,
        )

    return PortionReading(meter, work)


def files_scrubbed(
    blobs: BlobStore, outcome: VerifyOutcome, began: datetime, oldest: datetime
) -> events.JobFilesScrubbed:
    """Every file of the reading that `began` then matched. `oldest`: when that file of the copy was read that was not
    read for longest, after this reading. For a thread."""
    event = events.JobFilesScrubbed(
        evidence_blob=blobs.put_pieces_sync(evidence_lines(outcome.evidence)),
        file_count=len(outcome.evidence),
        byte_count=sum(read.size for read in outcome.evidence),
        method=outcome.method,
        grade=outcome.grade.value,
        host=outcome.host,
        note=outcome.note,
    )
    event.oldest_evidence_time.FromDatetime(oldest)
    event.begun_time.FromDatetime(began)
    return event
