"""Deletes a cleaned run's cache folder, last of all: after what it holds was sealed and compared everywhere."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path

from libs.event_log.blob_store import BlobStore
from libs.run_tree.beneath import folder_beneath
from libs.run_tree.manifest import CACHE_FOLDER, MANIFEST_PATH, is_changing_file, never_travels
from services.sync_engine.cleanup.deletion import Remaining, delete_files
from services.sync_engine.cleanup.local_files import in_cache, proven_everywhere
from services.sync_engine.cleanup.work import CleanupWork
from services.sync_engine.jobs.file_list import read_copied
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.job_history import JobHistoryError
from services.sync_engine.jobs.progress import JobProgressMeter
from services.sync_engine.jobs.seal_step import changing_files
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.source_file import copied_from
from services.sync_engine.transfer.transfer_control import TransferStoppedError
from services.sync_engine.transfer.transport import CopiedFile, EntryKind, SourceEntry, TransferError

_TRIES = 5
_CREATION = CACHE_FOLDER + b"/creation.json"


class CacheFolder:
    """The cache folders of runs whose data is deleted (`retain_cache` false)."""

    def __init__(self, bench: Workbench, work: CleanupWork) -> None:
        self._bench = bench
        self._work = work

    async def delete(
        self, located: LocatedRun, jobs: Sequence[Job], lead: Job, may: Callable[[], bool], *, without_lease: bool
    ) -> Sequence[Remaining]:
        """What is still there, and why; empty when the folder is gone. Another program may write there meanwhile: only
        files whose very content every destination holds are deleted, and only while they `may` be and `lead` is this
        engine's. `without_lease` as of `delete_files`."""
        bench = self._bench
        digests = [job.files_blob for job in jobs if job.files_blob is not None]
        known = dict(await bench.threads.run(partial(_proven_of_cache, bench.blobs, digests)))
        manifests = [await bench.threads.run(partial(_manifest, bench.blobs, job)) for job in jobs]
        remaining: Sequence[Remaining] = ()
        try:
            for _ in range(_TRIES):
                snapshot = _of_run(located, await bench.threads.run(partial(changing_files, located, manifests[0])))
                for job, manifest in zip(jobs, manifests, strict=True):
                    place = bench.destination(job)
                    if place is None:
                        return [Remaining(CACHE_FOLDER, f"{job.destination} is not in the configuration")]
                    await self._seal(place, job, _with_own(manifest, snapshot), lead)
                known |= {path: file.sha256() for path, file in snapshot.items()}
                remaining = await bench.threads.run(partial(_delete, located.folder, known, may, without_lease))
                # What was written since the snapshot, the run's own log above all, is brought once more.
                if not any(is_changing_file(left.path) and not never_travels(left.path) for left in remaining):
                    break
            return remaining
        except (TransferError, TransferStoppedError, OSError) as error:
            return [Remaining(CACHE_FOLDER, f"its sealed copy could not be compared: {error}")]

    async def _seal(self, place: Destination, job: Job, files: Sequence[SealedFile], lead: Job) -> None:
        control = self._bench.control_of(lead)
        await self._work.do(
            control,
            JobProgressMeter(lambda: None),
            lambda: place.transport.seal(files, job_id=job.job_id, control=control),
        )


def _proven_of_cache(blobs: BlobStore, digests: Sequence[str]) -> Mapping[bytes, str]:
    """SHA-256 by path of what every destination holds of the run's own cache folder."""
    lists = [read_copied(blobs, digest) for digest in digests]
    return {one.path: one.copies[0].sha256 for one in proven_everywhere(lists) if in_cache(one.path)}


def _manifest(blobs: BlobStore, job: Job) -> Path:
    if job.manifest_blob is None:
        raise JobHistoryError(f"job {job.job_id} is {job.state} without a manifest")
    return blobs.checked_path_sync(job.manifest_blob)


def _with_own(manifest: Path, snapshot: Mapping[bytes, SealedFile]) -> Sequence[SealedFile]:
    """The files for a destination with this manifest: it lists what was proven there, which may be less than elsewhere.
    All but the manifest are the same everywhere."""
    return [replace(file, content=manifest) if path == MANIFEST_PATH else file for path, file in snapshot.items()]


def _of_run(located: LocatedRun, files: Sequence[SealedFile]) -> Mapping[bytes, SealedFile]:
    """The files of the run's own cache folder, by path relative to the run."""
    below = os.fsencode(located.path.below_equipment) + b"/"
    return {f.path.removeprefix(below): f for f in files if f.path.startswith(below + CACHE_FOLDER + b"/")}


def _delete(
    run_folder: Path, known: Mapping[bytes, str], may: Callable[[], bool], without_lease: bool
) -> Sequence[Remaining]:
    files: list[CopiedFile] = []
    creation: list[CopiedFile] = []
    locks: list[CopiedFile] = []
    others: list[Remaining] = []
    for path, status in _found(run_folder):
        entry = SourceEntry(path, EntryKind.FILE, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        if path in known:
            (creation if path == _CREATION else files).append(copied_from(entry, known[path]))
        elif never_travels(path) and path.endswith(b".lock") and status.st_size == 0:
            locks.append(copied_from(entry, hashlib.sha256(b"").hexdigest()))
        else:
            others.append(Remaining(path, "no destination holds it"))
    if others:
        return others
    for portion in (files, creation, locks):
        # A run is known by its creation.json, and who writes that needs its lock: both go when nothing else is left.
        if not may():
            return [Remaining(CACHE_FOLDER, "the deletion was ended before its turn came")]
        remaining = delete_files(run_folder, portion, may, without_lease=without_lease).remaining
        if remaining:
            return remaining
    return [Remaining(path, "it was written while the others were deleted") for path, _ in _found(run_folder)]


def _found(run_folder: Path) -> Sequence[tuple[bytes, os.stat_result]]:
    """Everything in the cache folder that is no folder, by path relative to the run; nothing when it is gone."""
    found: list[tuple[bytes, os.stat_result]] = []
    with folder_beneath(run_folder) as root, suppress(FileNotFoundError):
        for folder, _, names, opened in os.fwalk(CACHE_FOLDER, dir_fd=root):
            for name in names:
                # Another program's temporary file may be gone by then; the others are not.
                with suppress(FileNotFoundError):
                    found.append((folder + b"/" + name, os.stat(name, dir_fd=opened, follow_symlinks=False)))
    return sorted(found, key=itemgetter(0))
