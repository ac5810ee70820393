"""A destination behind a tool, as a `Transport`: one way of landing, resuming and verifying for rclone and rsync."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from heapq import merge
from pathlib import Path, PurePosixPath

from libs.run_tree.manifest import CACHE_FOLDER
from services.sync_engine.transfer.copied_aside import CopiedAside
from services.sync_engine.transfer.copy_pipeline import local_failure
from services.sync_engine.transfer.far_aside import is_guard, kept_under, remove_beginning_with, set_aside
from services.sync_engine.transfer.far_side import FarPlace, FarSide
from services.sync_engine.transfer.incoming import INCOMING, incoming_folder, partial_folder
from services.sync_engine.transfer.mark import is_mark
from services.sync_engine.transfer.name_plan import refuse_impossible_names
from services.sync_engine.transfer.path_order import by_path
from services.sync_engine.transfer.remote_copy import OwnCopies, RemoteCopy, batches
from services.sync_engine.transfer.remote_plan import plan_remote, present_digests
from services.sync_engine.transfer.remote_verify import verify_remote
from services.sync_engine.transfer.room import refuse_if_full
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.sealing import folder_of_sealed, folders_of_sealed
from services.sync_engine.transfer.source_file import SourceFiles
from services.sync_engine.transfer.spellings import refuse_other_spellings
from services.sync_engine.transfer.spilled_list import spilled
from services.sync_engine.transfer.system_error import shown
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

_BATCH_FILES = 2000
_CHECK_SECONDS = 25.0


class RemoteTransport:
    """One equipment's folder at a destination behind a tool. Implements `Transport`."""

    def __init__(
        self, place: FarPlace, *, max_stream_bytes: int, used_before: bool = False, batch_files: int = _BATCH_FILES
    ) -> None:
        """`max_stream_bytes`: the largest file to download where nothing else gives its hash. `used_before`: the log
        tells of jobs that were brought there, so its incoming folder must be there too, where there are folders.
        `batch_files`: files that are sent, made known, and given their names together."""
        self._batch_files = batch_files
        self._place = place
        self._max_stream_bytes = max_stream_bytes
        # Once seen, its absence means that something else is mounted there.
        self._incoming_seen = used_before
        self._copied_aside = CopiedAside()
        self._traits: TargetTraits | None = None
        self._traits_lock = threading.Lock()

    @property
    def traits(self) -> TargetTraits | None:
        """As `Transport.traits`."""
        return self._traits

    @property
    def tools(self) -> Mapping[str, str]:
        """As `Transport.tools`."""
        return self._place.tools.versions

    def require_tools(self) -> None:
        """As `Transport.require_tools`."""
        self._place.tools.require()

    def check(self) -> None:
        """As `Transport.check`; what says nothing for 25 s doesn't answer."""
        with self._opened(TransferControl(), _CHECK_SECONDS) as far:
            far.check()
            self._incoming_seen = self._incoming_seen or far.has_incoming() is True

    def free_bytes(self) -> int | None:
        """As `Transport.free_bytes`."""
        with self._opened(TransferControl(), _CHECK_SECONDS) as far:
            return far.free_bytes()

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
        files, place = SourceFiles(os.fsencode(source)), os.fsencode(target)
        incoming = os.fsencode(incoming_folder(job_id, attempt))
        with self._opened(control) as far, self._place.bandwidth.sending():
            traits = self._target_traits(far, incoming)
            refuse_impossible_names(entries, traits, kept)
            refuse_other_spellings([place], far.children, traits)
            staying = self._copied_aside.of(place, job_id, attempt)
            free = cleared | staying
            plan = plan_remote(far, files, place, entries, landed, free, self._max_stream_bytes, traits, control)
            if plan.send:
                refuse_if_full(far.free_bytes(), plan.bytes_to_send)
            far.remove(incoming)
            progress.begin(ProgressPhase.COPYING, len(plan.send), plan.bytes_to_send)
            kept_aside = kept_under(place, job_id, attempt)
            own = OwnCopies(plan.replaceable, kept_aside, staying)
            work = RemoteCopy(far, os.fsencode(source), files, place, incoming, own, control, progress)
            try:
                work.run(batches(plan.send, self._batch_files), before_landing)
                if work.cut_short:
                    control.raise_before_file()
                if work.failures:
                    raise local_failure(work.failures)
                far.settle_folders(place, plan.folders)
                far.remove(incoming)
            except TransferError:
                # What ended the attempt is what matters; leftovers are swept by the next one.
                with suppress(TransferError):
                    far.remove(incoming)
                raise
        return spilled(CopiedFile, merge(plan.settled, work.landed.finish(), key=by_path))

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
        """As `Transport.verify`."""
        with self._opened(control) as far:
            outcome = verify_remote(
                far,
                os.fsencode(target),
                expected,
                expected if whole is None else whole,
                control=control,
                progress=progress,
                max_stream_bytes=max(self._max_stream_bytes, max_stream_bytes),
            )
            if outcome.missing:
                # Files are lost when their storage is there and they aren't.
                self._refuse_another(far)
            return outcome

    def seal(self, files: Sequence[SealedFile], *, job_id: str, control: TransferControl) -> None:
        """As `Transport.seal`, as atomically as the backend can."""
        for file in files:
            folder_of_sealed(file)
        own = os.fsencode(job_id) + b"-seal-"
        # Each has a name of its own: an engine that slept through the loss of its job finds its folder gone.
        incoming = INCOMING + b"/" + own + secrets.token_hex(8).encode("ascii")
        with self._opened(control) as far:
            refuse_other_spellings(folders_of_sealed(files), far.children, self._traits)
            remove_beginning_with(far, own)
            try:
                far.seal(files, incoming)
            finally:
                with suppress(TransferError):
                    far.remove(incoming)
            expected = {file.path: file.size for file in files}
            most = max(expected.values(), default=0)
            found = far.digests(b"", expected, most, lambda path, size: None).readable()
        differing = [file.path for file in files if found.get(file.path) != file.sha256()]
        if differing:
            raise TransferError(
                FailureKind.HASH_MISMATCH, f"{shown(differing[0])} was read back differently after sealing", differing
            )

    @contextmanager
    def marked(self, target: PurePosixPath, mark: bytes) -> Iterator[None]:
        """As `Transport.marked`."""
        cache = os.fsencode(target) + b"/" + CACHE_FOLDER
        incoming = INCOMING + b"/seal-" + secrets.token_hex(8).encode("ascii")
        with self._opened(TransferControl(), _CHECK_SECONDS) as far:
            _remove_marks(far, cache)
            try:
                try:
                    far.seal([SealedFile(cache + b"/" + mark, mark, time.time_ns())], incoming)
                finally:
                    far.remove(incoming)
                yield
            finally:
                _remove_marks(far, cache)

    def digests(
        self, target: PurePosixPath, paths: Sequence[bytes], *, control: TransferControl
    ) -> Mapping[bytes, str]:
        """As `Transport.digests`. TransferError CONFIGURATION for a file that is too large to be downloaded."""
        if not paths:
            return {}
        place = os.fsencode(target)
        with self._opened(control) as far:
            asked = frozenset(paths)
            there = [name for name in far.names(place) if name.path in asked]
            found = present_digests(far, place, there, self._max_stream_bytes)
        unread = [name.path for name in there if name.kind is EntryKind.FILE and name.path not in found]
        if unread:
            raise TransferError(
                FailureKind.CONFIGURATION,
                f"{shown(unread[0])} is larger than verify.max_stream_bytes and can't be hashed at the destination",
                unread,
            )
        return found

    def holds_any(self, target: PurePosixPath, paths: Sequence[bytes], *, control: TransferControl) -> bool:
        """As `Transport.holds_any`."""
        with self._opened(control) as far:
            return far.holds_any(os.fsencode(target), paths)

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
        if not paths:
            return ()
        place = os.fsencode(target)
        with self._opened(control) as far:
            there, free = set_aside(far, place, paths, job_id=job_id, attempt=attempt, replaced=replaced)
        if not free:
            self._copied_aside.of(place, job_id, attempt).update(there)
        return there

    def sweep(self, job_id: str, *, keep_attempt: int | None, control: TransferControl) -> None:
        """As `Transport.sweep`."""
        self._copied_aside.forget(job_id, keep_attempt=keep_attempt)
        own = os.fsencode(job_id) + b"-"
        partial = partial_folder(os.fsencode(job_id))
        with self._opened(control) as far:
            for name in far.children(INCOMING):
                number = name.removeprefix(own)
                is_dead = name.startswith(own) and number.isdigit() and int(number) != keep_attempt
                is_dead = is_dead or is_guard(name, job_id)
                if is_dead or (name == partial and keep_attempt is None):
                    far.remove(INCOMING + b"/" + name)

    @contextmanager
    def _opened(self, control: TransferControl, most_seconds: float | None = None) -> Iterator[FarSide]:
        with self._place.open(control, most_seconds) as far:
            self._refuse_another(far)
            yield far

    def _refuse_another(self, far: FarSide) -> None:
        present = far.has_incoming()
        if self._incoming_seen and present is False:
            raise TransferError(
                FailureKind.NETWORK,
                f"the destination is another folder than before: its {os.fsdecode(INCOMING)} is gone. Mount it there "
                "again, or make that folder anew if it was deleted on purpose",
            )
        self._incoming_seen = self._incoming_seen or present is True

    def _target_traits(self, far: FarSide, folder: bytes) -> TargetTraits:
        with self._traits_lock:
            if self._traits is None or self._traits.alters_case:
                self._traits = far.traits(folder)
            return self._traits


def _remove_marks(far: FarSide, cache: bytes) -> None:
    marks = [cache + b"/" + name.path for name in far.names(cache) if is_mark(name.path)]
    if marks:
        far.remove_files(marks)
