"""Brings the run's final changing files and its manifest to a destination whose data is proven (SPEC §4 sealing)."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath

import msgspec

from labferry.events.v1 import job_events_pb2 as events
from libs.event_log.blob_store import BlobStore
from libs.run_tree.atomic_file import (
    NotAPlainFileError,
    copy_in_folder,
    open_in_folder,
    read_in_folder,
    write_in_folder,
)
from libs.run_tree.beneath import folder_beneath, is_folder_beneath
from libs.run_tree.creation_errors import CreationError
from libs.run_tree.creation_record import SyncStatus, parse_creation
from libs.run_tree.manifest import CACHE_FOLDER, MANIFEST_PATH, is_changing_file, never_travels
from libs.run_tree.receipt import receipt_file_name
from libs.service_kit.errors import LabferryError
from services.sync_engine.jobs.file_list import read_few_copied
from services.sync_engine.jobs.job import SYNC_STATUSES, Job, WaitCondition
from services.sync_engine.jobs.job_history import JobHistoryError
from services.sync_engine.jobs.read_model import latest_by_destination
from services.sync_engine.jobs.retry import SEAL_PAUSE
from services.sync_engine.jobs.work_in_hand import WorkInHand
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.runs.run import RunRecord
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transfer_control import TransferControl, TransferStoppedError
from services.sync_engine.transfer.transport import FailureKind, ProgressPhase, TransferError

_TRIES = 5
_LOOKED_FOR = 8
"""So many of a run's first files, and of its last, tell whether its copy is at a place."""
_NAMED = 3


class _SealedLine(msgspec.Struct, frozen=True):
    path: str
    size: int
    sha256: str


class SealStep:
    """Seals a job: status into the file, then a snapshot of the changing files to the destination, compared there."""

    def __init__(self, bench: Workbench, in_hand: WorkInHand) -> None:
        self._bench = bench
        self._in_hand = in_hand

    async def take(self, job: Job) -> datetime | None:
        async with self._bench.turn_beside(job):
            return await self._take(job)

    async def _take(self, job: Job) -> datetime | None:
        bench = self._bench
        destination = bench.destination(job)
        record = await bench.log.run(job.run)
        if destination is None or _status_to_seal(job, record) is None:
            return None
        jobs = await bench.jobs_of_run(job.run)
        latest = latest_by_destination(jobs).get(job.destination)
        if latest is not None and latest.job_id != job.job_id:
            # A later job speaks for this destination: its manifest is the one that belongs there.
            return None
        down = bench.watch.known_down(job.equipment_id, job.destination)
        if down is not None:
            await bench.hold_unreachable(job, down)
            return None
        if job.manifest_blob is None or job.files_blob is None:
            raise JobHistoryError(f"job {job.job_id} is {job.state} without a manifest")
        manifest_blob, files_blob = job.manifest_blob, job.files_blob
        manifest = await bench.threads.run(lambda: bench.blobs.checked_path_sync(manifest_blob))
        progress = bench.board.open(job.job_id)
        try:
            located = await bench.locate(job.run)
            receipt = await bench.receipts.issue(job)
            others = {one.destination for one in jobs} - {job.destination}
            settled = await self._snapshot(job, located, manifest, {job.destination: receipt}, others)
            if settled is None:
                return None
            snapshot, status, override_count = settled
            progress.begin(ProgressPhase.SEALING, len(snapshot), sum(f.size for f in snapshot))
            control = bench.control_of(job)
            first = not any(one.sealed for one in jobs if one.destination == job.destination)

            def seal() -> None:
                _refuse_without_copy(bench.blobs, files_blob, located, destination, control)
                if first:
                    self._keep_what_others_wrote(job, located, destination, snapshot, control)
                destination.transport.seal(snapshot, job_id=job.job_id, control=control)

            await self._in_hand.do(job.job_id, control, progress, seal)
        except TransferStoppedError:
            # The engine ends; the next one seals.
            return None
        except TransferError as error:
            return await bench.fail(job, error, destination)
        except (CreationError, LabferryError, OSError) as error:
            again = bench.clock() + SEAL_PAUSE
            return await bench.hold(job, WaitCondition.OPERATOR, f"sealing: {error}", again)
        finally:
            bench.board.close(job.job_id)
        lines = await bench.threads.run(
            lambda: [_SealedLine(f.path.decode(errors="replace"), f.size, f.sha256()) for f in snapshot]
        )
        await bench.conclude(
            job,
            events.JobSealed(
                snapshot_blob=await bench.blobs.put(msgspec.json.Encoder().encode_lines(lines)),
                file_count=len(snapshot),
                sync_status=SYNC_STATUSES.to_proto(status),
                override_count=override_count,
                receipt_blob=await bench.blobs.put(receipt),
            ),
        )
        return None

    def _keep_what_others_wrote(
        self,
        job: Job,
        located: LocatedRun,
        destination: Destination,
        snapshot: Sequence[SealedFile],
        control: TransferControl,
    ) -> None:
        """What lies where nothing was sealed yet, and differs, is moved beside the data before it is replaced. In the
        folders above the run every run's sealing leaves its traces. TransferError, TransferStoppedError."""
        cache = located.path.below_equipment / CACHE_FOLDER.decode()
        prefix = os.fsencode(cache) + b"/"
        ours = {f.path.removeprefix(prefix): f.sha256() for f in snapshot if f.path.startswith(prefix)}
        there = destination.transport.digests(cache, list(ours), control=control)
        others = sorted(name for name, sha256 in there.items() if sha256 != ours[name])
        if others:
            destination.transport.set_aside(
                cache, others, job_id=job.job_id, attempt=job.attempt, control=control, replaced=True
            )
            names = [name.decode(errors="replace") for name in others]
            self._bench.logger.warning("set_aside_before_sealing", job=job.job_id, run=job.run, files=names)

    async def _snapshot(
        self, job: Job, located: LocatedRun, manifest: Path, receipts: Mapping[str, bytes], others: Iterable[str]
    ) -> tuple[Sequence[SealedFile], SyncStatus, int] | None:
        """The changing files, and the status and the number of overrides that they say and the log says; None when that
        calls for no seal any more. Receipts of `others` are left out: they may be of other manifests.
        Another program may write them at any moment, and the run's other jobs may change the status."""
        bench = self._bench
        left_out = {_in_cache(located, receipt_file_name(name)) for name in others}
        for _ in range(_TRIES):
            # A lock that another program holds for long is waited for.
            await bench.files.project(located)
            await bench.before_seal(located.identity)
            record = await bench.log.run(located.identity)
            status = _status_to_seal(job, record)
            if status is None:
                return None
            found = await bench.threads.run(lambda: changing_files(located, manifest, receipts))
            snapshot = [file for file in found if file.path not in left_out]
            if _says(snapshot, located, record):
                return snapshot, status, len(record.overrides)
        raise TransferError(FailureKind.SOURCE_CHANGED, "another program keeps writing creation.json")


def _refuse_without_copy(
    blobs: BlobStore, files_blob: str, located: LocatedRun, destination: Destination, control: TransferControl
) -> None:
    """A status, manifest and receipt vouch for the data beside them: they aren't put where none of it lies. A file that
    was lost is the verification's to find. TransferError, TransferStoppedError."""
    few = [file.path for file in read_few_copied(blobs, files_blob, _LOOKED_FOR)]
    if few and not destination.transport.holds_any(located.path.below_equipment, few, control=control):
        names = ", ".join(map(shown, few[:_NAMED])) + (", …" if len(few) > _NAMED else "")
        raise TransferError(
            FailureKind.CONFIGURATION,
            f"the run's copy is not at the place that {destination.name} names now: no file of it is there (looked for "
            f"{names}). Nothing was sealed there",
            few,
        )


def _status_to_seal(job: Job, record: RunRecord) -> SyncStatus | None:
    """What the sealed files will say; None when no seal is due."""
    status = record.sync_status
    return status if status is not None and job.seal_is_due(status, len(record.overrides)) else None


def _says(snapshot: Sequence[SealedFile], located: LocatedRun, record: RunRecord) -> bool:
    """Whether the run's creation.json has the status and the overrides of the log; not when it was just gone."""
    creation = _in_cache(located, "creation.json")
    written = next((file for file in snapshot if file.path == creation), None)
    if written is None:
        return False
    creation_record = parse_creation(b"".join(written.pieces()))
    ids = {entry.id for entry in creation_record.overrides}
    return creation_record.sync_status is record.sync_status and ids == {entry.id for entry in record.entries}


def _in_cache(located: LocatedRun, name: str) -> bytes:
    """The path of a file of the run's cache folder, below the equipment's."""
    return os.fsencode(located.path.below_equipment / CACHE_FOLDER.decode() / name)


def changing_files(
    located: LocatedRun, manifest: Path, receipts: Mapping[str, bytes] | None = None
) -> list[SealedFile]:
    """The run's changing files, the manifest, and the cache files of the folders above the run, as they are now.

    The manifest and the `receipts`, by destination, are put into the run's cache folder first.
    """
    manifest_path = located.folder / MANIFEST_PATH.decode()
    with folder_beneath(manifest_path.parent) as cache:
        if not _is_there(cache, manifest_path, manifest):
            copy_in_folder(cache, manifest_path, manifest, mode=0o600)
        for destination, receipt in (receipts or {}).items():
            write_in_folder(cache, manifest_path.with_name(receipt_file_name(destination)), receipt, mode=0o600)
    files: list[SealedFile] = []
    folder = PurePosixPath()
    local = located.root / located.path.equipment_id
    files += _cache_files(local, folder)
    for part in located.path.below_equipment.parts:
        folder, local = folder / part, local / part
        files += _cache_files(local, folder, manifest if folder == located.path.below_equipment else None)
    return files


def _cache_files(folder: Path, target: PurePosixPath, manifest: Path | None = None) -> list[SealedFile]:
    """With a `manifest` of the run itself, whose other cache files, and all in folders there, travel with its data.

    Other seals and other programs write here meanwhile: a name that is gone when its turn comes was a temporary one.
    """
    if not is_folder_beneath(folder / CACHE_FOLDER.decode()):
        return []
    files: list[SealedFile] = []
    ahead = [CACHE_FOLDER]
    while ahead:
        below = ahead.pop()
        with suppress(FileNotFoundError), folder_beneath(folder / os.fsdecode(below)) as opened:
            for name in sorted(os.listdir(opened)):
                relative = below + b"/" + os.fsencode(name)
                if manifest is not None and (never_travels(relative) or not is_changing_file(relative)):
                    continue
                try:
                    status = os.stat(name, dir_fd=opened, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    ahead += [relative] if manifest is None else []
                    continue
                if never_travels(relative):
                    continue
                content: bytes | Path
                if manifest is not None and relative == MANIFEST_PATH:
                    content = manifest
                else:
                    try:
                        content = read_in_folder(opened, folder / os.fsdecode(relative))
                    except (FileNotFoundError, NotAPlainFileError):
                        continue
                where = os.fsencode(target) + b"/" + relative
                files.append(SealedFile(where.removeprefix(b"./"), content, status.st_mtime_ns))
    return files


def _is_there(cache: int, path: Path, manifest: Path) -> bool:
    try:
        with open_in_folder(cache, path) as here, manifest.open("rb") as wanted:
            return hashlib.file_digest(here, "sha256").digest() == hashlib.file_digest(wanted, "sha256").digest()
    except (FileNotFoundError, NotAPlainFileError):
        return False
