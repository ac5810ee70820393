"""One reading back of a proven copy: what it found, or that it could not check, which is never a pass (SPEC §4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.verify_step import Occasion, Verification, inconclusive, verify_destination
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import Progress, TransferError, VerifyOutcome


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
