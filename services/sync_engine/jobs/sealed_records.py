"""The records that a seal put beside a proven copy stay what they were, as the data does (SPEC §4 sealing).

Its manifest and receipt are the engine's alone, so they are put back as they were. creation.json may be written by
others there: that it is missing is told.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePosixPath

from libs.event_log.blob_store import BlobError, BlobStore
from libs.run_tree.manifest import CACHE_FOLDER, MANIFEST_PATH
from libs.run_tree.receipt import receipt_file_name
from libs.run_tree.run_path import RunPath
from services.sync_engine.jobs.job import ENDED_STATES, PROVEN_STATES, Job
from services.sync_engine.jobs.work_in_hand import DoInThread
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import TransferError, VerifyOutcome

_CREATION = b"creation.json"


@dataclass(frozen=True, slots=True)
class SealedRecords:
    """How they were found. `sound`: they are as they were sealed, by now. `note` is one plain sentence, empty when
    there is nothing to say."""

    sound: bool
    note: str = ""

    def beside(self, outcome: VerifyOutcome) -> VerifyOutcome:
        """The reading of the copy, with what is to be said of them."""
        return replace(outcome, note="; ".join(filter(None, (outcome.note, self.note))))


async def keep_sealed_records(
    bench: Workbench,
    job: Job,
    place: Destination,
    do: DoInThread,
    control: TransferControl,
    *,
    leased: bool,
) -> SealedRecords:
    """Looks at the manifest and the receipt beside a copy, and puts back what isn't as it was sealed last; `do` runs
    work in a thread. `leased`: this work has the job's lease already. TransferError, TransferStoppedError."""
    if leased:
        return await _kept(bench, job, place, do, control, may_write=True)
    async with bench.owned.over(job.job_id, job.equipment_id, in_slot=False) as mine:
        return await _kept(bench, job, place, do, control, may_write=mine)


async def _kept(
    bench: Workbench,
    job: Job,
    place: Destination,
    do: DoInThread,
    control: TransferControl,
    *,
    may_write: bool,
) -> SealedRecords:
    # The reading took its time: what was sealed meanwhile counts, and nothing is sealed while this lasts.
    async with bench.turn_beside(job):
        present = await _present(bench, job)
        if present is None:
            return SealedRecords(True)
        now = bench.clock()
        return await do(lambda: _look(bench.blobs, present, place, now, control, may_write))


async def _present(bench: Workbench, job: Job) -> Job | None:
    """The job as it is by now; None when another speaks for this destination, or is about to, or a seal is due."""
    later = [each for each in await bench.jobs_of_run(job.run) if each.destination == job.destination]
    later = later[[each.job_id for each in later].index(job.job_id) + 1 :]
    if any(each.state in PROVEN_STATES or each.state not in ENDED_STATES for each in later):
        return None
    present, record = await bench.log.job(job.job_id), await bench.log.run(job.run)
    if present is None or not present.sealed or present.manifest_blob is None or not present.receipt_blob:
        return None
    status = record.sync_status
    due = status is not None and present.seal_is_due(status, len(record.overrides))
    return None if due else present


def _look(
    blobs: BlobStore, job: Job, place: Destination, now: datetime, control: TransferControl, may_write: bool
) -> SealedRecords:
    # What the log names them by is their SHA-256.
    sealed = {
        MANIFEST_PATH.removeprefix(CACHE_FOLDER + b"/"): job.manifest_blob or "",
        os.fsencode(receipt_file_name(job.destination)): job.receipt_blob,
    }
    try:
        there = place.transport.digests(_cache(job), [*sealed, _CREATION], control=control)
        wrong = [name for name, sha256 in sealed.items() if there.get(name) != sha256]
        missing = "" if _CREATION in there else "creation.json is missing beside the copy"
        names = ", ".join(shown(name) for name in wrong)
        if not wrong or not may_write:
            note = f"beside the copy {names} is missing or another than was sealed" if wrong else missing
            return SealedRecords(not wrong, note)
        cache = os.fsencode(_cache(job)) + b"/"
        modified = int(now.timestamp()) * 1_000_000_000
        files = [SealedFile(cache + name, blobs.checked_path_sync(sealed[name]), modified) for name in wrong]
        place.transport.seal(files, job_id=job.job_id, control=control)
    except (TransferError, BlobError) as error:
        return SealedRecords(False, f"the manifest and the receipt beside the copy aren't known to be sound: {error}")
    put_back = f"beside the copy {names} was missing or another than was sealed, and was put back"
    return SealedRecords(True, "; ".join(filter(None, (put_back, missing))))


def _cache(job: Job) -> PurePosixPath:
    return RunPath.parse(job.run).below_equipment / CACHE_FOLDER.decode()
