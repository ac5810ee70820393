"""The `mounted` transport: a NAS that is a folder on this machine (SMB, NFS, local disk). Needs no tool (SPEC §4)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from heapq import merge
from itertools import chain
from pathlib import Path, PurePosixPath

from services.sync_engine.transfer.bandwidth import UNLIMITED, Bandwidth, BandwidthBrake
from services.sync_engine.transfer.copy_pipeline import local_failure, run_pipeline
from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.file_copy import FileCopier
from services.sync_engine.transfer.incoming import CHECK_FILE, INCOMING, IncomingFolder, incoming_folder, sweep_incoming
from services.sync_engine.transfer.landing import Landing
from services.sync_engine.transfer.landing_plan import plan_landing
from services.sync_engine.transfer.mounted_mark import marked_at
from services.sync_engine.transfer.name_plan import refuse_impossible_names
from services.sync_engine.transfer.path_order import by_path
from services.sync_engine.transfer.present import digest_at_destination, names_present
from services.sync_engine.transfer.read_back import read_back
from services.sync_engine.transfer.room import refuse_if_full
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.sealing import folders_of_sealed, seal_files
from services.sync_engine.transfer.second_process.assisted_copy import AssistedCopier
from services.sync_engine.transfer.second_process.lanes import WITH_LANES, lanes_for
from services.sync_engine.transfer.second_process.messages import CopyLane
from services.sync_engine.transfer.second_process.process import SecondProcess
from services.sync_engine.transfer.source_file import SourceFiles
from services.sync_engine.transfer.spellings import refuse_other_spellings
from services.sync_engine.transfer.spilled_list import in_portions, spilled
from services.sync_engine.transfer.superseded import set_aside
from services.sync_engine.transfer.system_error import destination_error
from services.sync_engine.transfer.target_probe import probe_target
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EntryKind,
    FailureKind,
    Progress,
    ProgressPhase,
    SourceEntry,
    TargetTraits,
    TransferError,
    VerifyOutcome,
)

_TOGETHER = 1000


class MountedTransport:
    """One equipment's folder at the destination. Implements `Transport`; several threads may use one object."""

    def __init__(
        self,
        path: Path,
        *,
        bandwidth: Bandwidth = UNLIMITED,
        used_before: bool = False,
        is_real: bool = False,
        refuse_overlap: Callable[[Path, int], None] = lambda path, descriptor: None,
        second: SecondProcess | None = None,
    ) -> None:
        """`used_before`: the log tells of jobs that were brought there, so its incoming folder must be there too.
        `is_real`: as of `DestinationRoot`. `refuse_overlap` hears of the open folder before anything is done there, and
        raises when it is one that copies must not lie in. `second` helps with runs of many small files."""
        self._second = second
        self._path = path
        self._refuse_overlap = refuse_overlap
        self._is_real = is_real
        # One brake for all jobs: the limit is the destination's.
        self._brake = BandwidthBrake(bandwidth)
        # The incoming folder stays at the destination; once seen, its absence means that something else is mounted
        # there.
        self._incoming_seen = used_before
        self._traits: TargetTraits | None = None
        self._traits_lock = threading.Lock()

    @property
    def traits(self) -> TargetTraits | None:
        """As `Transport.traits`."""
        return self._traits

    @property
    def tools(self) -> Mapping[str, str]:
        """As `Transport.tools`: none."""
        return {}

    def require_tools(self) -> None:
        """As `Transport.require_tools`: it needs none."""

    def check(self) -> None:
        """Makes, syncs and removes an empty file. A full destination passes: that is a matter of each copy."""
        with self._opened() as root:
            try:
                root.ensure_folder(INCOMING)
                _remove_check_file(root)
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = root.open(CHECK_FILE, flags, 0o600)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                    _remove_check_file(root)
            except TransferError as error:
                if error.kind is not FailureKind.DESTINATION_FULL:
                    raise
            except OSError as error:
                failure = destination_error(error, "writing a probe file")
                if failure.kind is not FailureKind.DESTINATION_FULL:
                    raise failure from error

    def free_bytes(self) -> int | None:
        """Room for an ordinary user at the destination."""
        with self._opened() as root:
            return root.free_bytes()

    def copy(
        self,
        source: Path,
        entries: Sequence[SourceEntry],
        *,
        target: PurePosixPath,
        job_id: str,
        attempt: int,
        landed: Sequence[CopiedFile],
        before_landing: Callable[[Sequence[CopiedFile]], None],
        control: TransferControl,
        progress: Progress,
        cleared: AbstractSet[bytes] = frozenset(),
        kept: Sequence[CopiedFile] = (),
    ) -> Sequence[CopiedFile]:
        """As `Transport.copy`. Local files that can't be read fail the attempt at its end; the others have landed."""
        files = SourceFiles(os.fsencode(source))
        place = os.fsencode(target)
        with self._opened() as root:
            root.refuse_mounts_in(place)
            traits = self._target_traits(root, os.fsencode(incoming_folder(job_id, attempt)))
            refuse_impossible_names(entries, traits, kept)
            refuse_other_spellings([place], root.names_in, traits)
            plan = plan_landing(root, files, place, entries, landed, cleared, control)
            refuse_if_full(root.free_bytes(), plan.bytes_to_send)
            progress.begin(ProgressPhase.COPYING, len(plan.send), plan.bytes_to_send)
            with (
                IncomingFolder(root, job_id, attempt, control) as incoming,
                lanes_for(
                    # What it does can't be slowed down.
                    self._second if self._brake.never_limits else None,
                    root.filesystem,
                    len(plan.send),
                    CopyLane(os.fsencode(source)),
                    incoming.new_subfolder,
                    control,
                ) as lanes,
            ):
                root.ensure_folder(place)
                for folder in plan.folders:
                    root.ensure_folder(place + b"/" + folder.path)
                copier = FileCopier(files, incoming, brake=self._brake, control=control, progress=progress)
                outcome = run_pipeline(
                    plan.send,
                    copier=AssistedCopier(copier, lanes, control, progress) if lanes else copier,
                    landing=Landing(
                        root,
                        incoming,
                        place,
                        plan.replaceable,
                        renames_exclusively=bool(traits.exclusive_rename),
                        control=control,
                    ),
                    before_landing=before_landing,
                    workers=WITH_LANES if lanes else root.filesystem.workers,
                    streams=root.filesystem.streams,
                    control=control,
                )
            if outcome.failures:
                raise local_failure(outcome.failures)
            _settle_folders(root, place, plan.folders)
            root.refuse_if_gone()
        return spilled(CopiedFile, merge(plan.settled, outcome.landed.finish(), key=by_path))

    def verify(
        self,
        target: PurePosixPath,
        expected: Sequence[CopiedFile],
        *,
        control: TransferControl,
        progress: Progress,
        max_stream_bytes: int = 0,
        whole: Sequence[CopiedFile] | None = None,
    ) -> VerifyOutcome:
        """As `Transport.verify`: every file, whatever its size, read past this machine's page cache."""
        place = os.fsencode(target)
        with self._opened() as root:
            root.refuse_mounts_in(place)
            found = read_back(
                root,
                place,
                expected,
                expected if whole is None else whole,
                control=control,
                progress=progress,
                second=self._second,
            )
            # What was mounted meanwhile was read, too.
            root.refuse_mounts_in(place)
            return found

    def seal(self, files: Sequence[SealedFile], *, job_id: str, control: TransferControl) -> None:
        """As `Transport.seal`. No seal puts anything into the incoming folder."""
        with self._opened() as root:
            refuse_other_spellings(folders_of_sealed(files), root.names_in, self._traits)
            seal_files(root, files, control)

    @contextmanager
    def marked(self, target: PurePosixPath, mark: bytes) -> Iterator[None]:
        """As `Transport.marked`."""
        with self._opened() as root, marked_at(root, os.fsencode(target), mark):
            yield

    def digests(
        self, target: PurePosixPath, paths: Sequence[bytes], *, control: TransferControl
    ) -> Mapping[bytes, str]:
        """As `Transport.digests`."""
        place = os.fsencode(target)
        wanted = frozenset(paths)
        found: dict[bytes, str] = {}
        with self._opened() as root:
            for name in names_present(root, place) if wanted else ():
                control.look()
                if name.path in wanted and name.kind in (EntryKind.FILE, EntryKind.SYMLINK):
                    digest = digest_at_destination(root, place, name.path, name.kind, control.look)
                    if digest is not None:
                        found[name.path] = digest
        return found

    def holds_any(self, target: PurePosixPath, paths: Sequence[bytes], *, control: TransferControl) -> bool:
        """As `Transport.holds_any`."""
        place = os.fsencode(target)
        with self._opened() as root:
            for path in paths:
                control.look()
                if root.status(place + b"/" + path) is not None:
                    return True
        return False

    def set_aside(
        self,
        target: PurePosixPath,
        paths: Sequence[bytes],
        *,
        job_id: str,
        attempt: int,
        control: TransferControl,
        replaced: bool = False,
    ) -> Sequence[bytes]:
        """As `Transport.set_aside`: under `.labferry-superseded` beside the projects."""
        with self._opened() as root:
            return set_aside(root, os.fsencode(target), paths, job_id=job_id, attempt=attempt, control=control)

    def sweep(self, job_id: str, *, keep_attempt: int | None, control: TransferControl) -> None:
        """As `Transport.sweep`."""
        with self._opened() as root:
            sweep_incoming(root, job_id, keep_attempt=keep_attempt, control=control)

    @contextmanager
    def _opened(self) -> Iterator[DestinationRoot]:
        with DestinationRoot(self._path, is_real=self._is_real) as root:
            self._refuse_overlap(self._path, root.fd)
            root.filesystem.refuse_unprovable(self._path)
            present = root.status(INCOMING) is not None
            if self._incoming_seen and not present:
                raise TransferError(
                    FailureKind.NETWORK,
                    f"{self._path} is another folder than before: its {os.fsdecode(INCOMING)} is gone. Mount the "
                    "destination again, or make that folder anew if it was deleted on purpose",
                )
            yield root
            self._incoming_seen = present or root.status(INCOMING) is not None

    def _target_traits(self, root: DestinationRoot, folder: bytes) -> TargetTraits:
        with self._traits_lock:
            if self._traits is None or self._traits.alters_case:
                self._traits = probe_target(root, folder)
            return self._traits


def _settle_folders(root: DestinationRoot, place: bytes, folders: Sequence[SourceEntry]) -> None:
    # Deepest first: making a name in a folder changes its time.
    for folder in reversed(folders):
        root.date_folder(place + b"/" + folder.path, folder.mtime_ns)
    above, upper = [b""], place
    while upper:
        above.append(upper)
        upper = upper.rpartition(b"/")[0]
    with ThreadPoolExecutor(max_workers=root.filesystem.workers, thread_name_prefix="sync") as threads:
        for portion in in_portions(chain((place + b"/" + f.path for f in folders), above), _TOGETHER):
            for _ in threads.map(root.fsync_folder, portion):
                pass


def _remove_check_file(root: DestinationRoot) -> None:
    # Another engine that checks the same destination may have been quicker.
    with suppress(FileNotFoundError), root.folder_of(CHECK_FILE) as (folder, name):
        os.unlink(name, dir_fd=folder)
