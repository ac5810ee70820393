"""One reading back of a proven copy: what it found, or that it could not check, which is never a pass (SPEC §4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from labferry.events.v1 import job_events_pb2 as events
from labferry.sync.v1 import sync_service_pb2
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.verify_step import Occasion, Verification, verify_destination
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transport import (
    EvidenceGrade,
    Progress,
    TransferControl,
    TransferError,
    VerifyOutcome,
)


async def pass_over_copy(
    bench: Workbench,
    job: Job,
    place: Destination,
    occasion: Occasion,
    do: Callable[[Callable[[], VerifyOutcome]], Awaitable[VerifyOutcome]],
    control: TransferControl,
    progress: Progress,
) -> Verification:
    """As `verify_destination`, but a pass that broke off is one that failed. TransferStoppedError when it was ended."""
    try:
        return await verify_destination(bench, job, place, occasion, do, control, progress)
    except TransferError as error:
        return inconclusive(bench, job, occasion, error)


def inconclusive(bench: Workbench, job: Job, occasion: Occasion, error: TransferError) -> Verification:
    """The record of a pass that could not check."""
    report = sync_service_pb2.VerifyReport(
        run=job.run, destination=job.destination, job_id=job.job_id, note=f"{error.kind}: {error.message}"
    )
    report.verified_time.FromDatetime(bench.clock())
    outcome = VerifyOutcome(0, 0, 0, (), (), (), (), "", EvidenceGrade.E0, "", report.note)
    return Verification(outcome, report, events.JobVerificationFailed(report=report, occasion=occasion.value))
