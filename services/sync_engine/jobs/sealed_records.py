"""The records that a seal put beside a proven copy stay what they were, as the data does (SPEC §4 sealing).

Its manifest and receipt are the engine's alone, so they are put back as they were. creation.json may be written by
others there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from libs.event_log.blob_store import BlobError, BlobStore
from libs.run_tree.manifest import CACHE_FOLDER, MANIFEST_PATH
from libs.run_tree.receipt import receipt_file_name
from libs.run_tree.run_path import RunPath
from services.sync_engine.jobs.job import Job
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import TransferError


@dataclass(frozen=True, slots=True)
class SealedRecords:
    """How they were found. `sound`: they are as they were sealed, by now. `note` is one plain sentence, empty when
    there is nothing to say."""

    sound: bool
    note: str = ""


def keep_sealed_records(
    blobs: BlobStore, job: Job, place: Destination, at: datetime, control: TransferControl
) -> SealedRecords:
    """Looks at the manifest and the receipt beside a copy, and puts back what isn't as it was sealed; `at` is the time
    that it gets. For a worker thread. TransferStoppedError."""
    if not job.sealed or job.manifest_blob is None or not job.receipt_blob:
        return SealedRecords(True)
    # What the log names them by is their SHA-256.
    sealed = {
        MANIFEST_PATH.removeprefix(CACHE_FOLDER + b"/"): job.manifest_blob,
        os.fsencode(receipt_file_name(job.destination)): job.receipt_blob,
    }
    try:
        wrong = _wrong(sealed, job, place, control)
        if not wrong:
            return SealedRecords(True)
        names = ", ".join(shown(name) for name in wrong)
        cache = os.fsencode(_cache(job)) + b"/"
        modified = int(at.timestamp()) * 1_000_000_000
        files = [SealedFile(cache + name, blobs.checked_path_sync(sealed[name]), modified) for name in wrong]
        place.transport.seal(files, job_id=job.job_id, control=control)
    except (TransferError, BlobError) as error:
        return SealedRecords(False, f"the manifest and the receipt beside the copy aren't known to be sound: {error}")
    return SealedRecords(True, f"beside the copy {names} was missing or another than was sealed, and was put back")


def _wrong(sealed: Mapping[bytes, str], job: Job, place: Destination, control: TransferControl) -> list[bytes]:
    there = place.transport.digests(_cache(job), list(sealed), control=control)
    return [name for name, sha256 in sealed.items() if there.get(name) != sha256]


def _cache(job: Job) -> PurePosixPath:
    return RunPath.parse(job.run).below_equipment / CACHE_FOLDER.decode()
