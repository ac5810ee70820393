"""A destination behind a tool, as a `Transport`: one way of landing, resuming and verifying for rclone and rsync alike.

A batch is hashed on this machine, sent by the tool into the attempt's incoming folder, and looked at again on this
machine: the tools don't notice a source that changes under them. Then it is made known, and gets its names.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath

from services.sync_engine.transfer.copy_pipeline import local_failure
from services.sync_engine.transfer.far_side import FarPlace, FarSide, NotLanded
from services.sync_engine.transfer.file_copy import LOCAL_FAILURES
from services.sync_engine.transfer.incoming import INCOMING, incoming_folder
from services.sync_engine.transfer.name_plan import refuse_impossible_names
from services.sync_engine.transfer.present import Different, differing_error
from services.sync_engine.transfer.remote_plan import plan_remote, present_digests
from services.sync_engine.transfer.remote_verify import verify_remote
from services.sync_engine.transfer.sealing import folder_of_sealed
from services.sync_engine.transfer.source_file import SourceFiles, copied_from
from services.sync_engine.transfer.superseded import SUPERSEDED
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EntryKind,
    FailureKind,
    Progress,
    ProgressPhase,
    SealedFile,
    SourceEntry,
    TargetTraits,
    TransferControl,
    TransferError,
    VerifyOutcome,
)

_BATCH_FILES = 2000
_BATCH_BYTES = 256 << 20
_HASHERS = 2
_CHECK_SECONDS = 25.0


class RemoteTransport:
    """One equipment's folder at a destination behind a tool. Implements `Transport`."""

    def __init__(self, place: FarPlace, *, max_stream_bytes: int) -> None:
        """`max_stream_bytes`: the largest file to download where nothing else gives its hash."""
        self._place = place
        self._max_stream_bytes = max_stream_bytes
        self._traits: TargetTraits | None = None
        self._traits_lock = threading.Lock()

    @property
    def traits(self) -> TargetTraits | None:
        """As `Transport.traits`."""
        return self._traits

    def check(self) -> None:
        """As `Transport.check`; what says nothing for 25 s doesn't answer."""
        with self._place.open(TransferControl(), _CHECK_SECONDS) as far:
            far.check()

    def free_bytes(self) -> int | None:
        """As `Transport.free_bytes`."""
        with self._place.open(TransferControl(), _CHECK_SECONDS) as far:
            return far.free_bytes()

    def copy(
        self,
        source: Path,
        entries: Sequence[SourceEntry],
        *,
        target: PurePosixPath,
        job_id: str,
        attempt: int,
        landed: Mapping[bytes, Sequence[CopiedFile]],
        before_landing: Callable[[Sequence[CopiedFile]], None],
        control: TransferControl,
        progress: Progress,
    ) -> Sequence[CopiedFile]:
        """As `Transport.copy`. Local files that can't be read fail the attempt at its end; the others have landed."""
        files, place = SourceFiles(os.fsencode(source)), os.fsencode(target)
        incoming = os.fsencode(incoming_folder(job_id, attempt))
        with self._place.open(control) as far:
            refuse_impossible_names(entries, self._target_traits(far))
            plan = plan_remote(far, files, place, entries, landed, self._max_stream_bytes, control)
            free = far.free_bytes() if plan.send else None
            if free is not None and plan.bytes_to_send > free:
                raise TransferError(
                    FailureKind.DESTINATION_FULL,
                    f"{plan.bytes_to_send:,} bytes are to be sent and {free:,} are free at the destination",
                )
            far.remove(incoming)
            progress.begin(ProgressPhase.COPYING, len(plan.send), plan.bytes_to_send)
            work = _Copy(far, os.fsencode(source), files, place, incoming, plan.replaceable, control, progress)
            try:
                work.run(plan.send, before_landing)
                if work.cut_short:
                    control.raise_before_file()
                if work.failures:
                    raise local_failure(work.failures)
                far.settle_folders(os.fsencode(source), place, plan.folders)
                far.remove(incoming)
            except TransferError:
                # What ended the attempt is what matters; leftovers are swept by the next one.
                with suppress(TransferError):
                    far.remove(incoming)
                raise
        return sorted([*plan.settled, *work.landed], key=lambda file: file.path)

    def verify(
        self,
        target: PurePosixPath,
        expected: Sequence[CopiedFile],
        *,
        control: TransferControl,
        progress: Progress,
        max_stream_bytes: int | None = None,
    ) -> VerifyOutcome:
        """As `Transport.verify`."""
        most = self._max_stream_bytes if max_stream_bytes is None else max_stream_bytes
        with self._place.open(control) as far:
            return verify_remote(
                far, os.fsencode(target), expected, control=control, progress=progress, max_stream_bytes=most
            )

    def seal(self, files: Sequence[SealedFile]) -> None:
        """As `Transport.seal`, as atomically as the backend can."""
        for file in files:
            folder_of_sealed(file)
        incoming = INCOMING + b"/seal-" + secrets.token_hex(8).encode("ascii")
        with self._place.open(TransferControl()) as far:
            try:
                far.seal(files, incoming)
            finally:
                with suppress(TransferError):
                    far.remove(incoming)
            expected = {file.path: len(file.content) for file in files}
            found = far.digests(b"", expected, max(expected.values(), default=0), lambda path, size: None).found
        differing = [file.path for file in files if found.get(file.path) != hashlib.sha256(file.content).hexdigest()]
        if differing:
            raise TransferError(
                FailureKind.HASH_MISMATCH, f"{shown(differing[0])} was read back differently after sealing", differing
            )

    def digests(self, target: PurePosixPath, paths: Sequence[bytes]) -> Mapping[bytes, str]:
        """As `Transport.digests`. TransferError CONFIGURATION for a file that is too large to be downloaded."""
        if not paths:
            return {}
        place = os.fsencode(target)
        with self._place.open(TransferControl()) as far:
            present = far.names(place)
            wanted = {path: present[path] for path in paths if path in present}
            found = present_digests(far, place, wanted, self._max_stream_bytes)
        unread = [path for path, name in wanted.items() if name.kind is EntryKind.FILE and path not in found]
        if unread:
            raise TransferError(
                FailureKind.CONFIGURATION,
                f"{shown(unread[0])} is larger than verify.max_stream_bytes and can't be hashed at the destination",
                unread,
            )
        return found

    def set_aside(self, target: PurePosixPath, paths: Sequence[bytes], *, job_id: str, attempt: int) -> None:
        """As `Transport.set_aside`: under `.labferry-superseded` beside the projects."""
        if not paths:
            return
        place = os.fsencode(target)
        keep = SUPERSEDED + b"/" + f"{job_id}-{attempt}".encode("ascii") + b"/" + place
        with self._place.open(TransferControl()) as far:
            present, kept = far.names(place), far.names(keep)
            pairs = []
            for path in paths:
                if path in present:
                    suffix = b"." + secrets.token_hex(4).encode("ascii") if path in kept else b""
                    pairs.append((place + b"/" + path, keep + b"/" + path + suffix))
            if pairs:
                far.move(pairs)

    def sweep(self, job_id: str, *, keep_attempt: int | None) -> None:
        """As `Transport.sweep`."""
        own = os.fsencode(job_id) + b"-"
        with self._place.open(TransferControl()) as far:
            for name in far.children(INCOMING):
                number = name.removeprefix(own)
                if name.startswith(own) and number.isdigit() and int(number) != keep_attempt:
                    far.remove(INCOMING + b"/" + name)

    def _target_traits(self, far: FarSide) -> TargetTraits:
        with self._traits_lock:
            if self._traits is None:
                self._traits = far.traits()
            return self._traits


class _Copy:
    """Batches of one attempt: while one is sent, the next is hashed."""

    def __init__(
        self,
        far: FarSide,
        folder: bytes,
        source: SourceFiles,
        target: bytes,
        incoming: bytes,
        replaceable: frozenset[bytes],
        control: TransferControl,
        progress: Progress,
    ) -> None:
        self._far = far
        self._folder = folder
        self._source = source
        self._target = target
        self._incoming = incoming
        self._replaceable = replaceable
        self._control = control
        self._progress = progress
        self.landed: list[CopiedFile] = []
        self.failures: list[TransferError] = []
        self.cut_short = False

    def run(self, entries: Sequence[SourceEntry], before_landing: Callable[[Sequence[CopiedFile]], None]) -> None:
        with ThreadPoolExecutor(max_workers=_HASHERS, thread_name_prefix="hash") as threads:
            ahead: deque[tuple[list[SourceEntry], list[Future[str]]]] = deque()
            try:
                for number, batch in enumerate(_batches(entries)):
                    ahead.append((batch, [threads.submit(self._hash, entry) for entry in batch]))
                    if number > 0:
                        self._bring(number - 1, *ahead.popleft(), before_landing)
                    if self.cut_short:
                        return
                if ahead:
                    self._bring(number, *ahead.popleft(), before_landing)
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    def _hash(self, entry: SourceEntry) -> str:
        self._control.raise_if_stopped()
        return self._source.sha256(entry)

    def _bring(
        self,
        number: int,
        batch: Sequence[SourceEntry],
        hashing: Sequence[Future[str]],
        before_landing: Callable[[Sequence[CopiedFile]], None],
    ) -> None:
        if self._control.winding_down:
            self.cut_short = True
            return
        copied: dict[bytes, CopiedFile] = {}
        sendable: list[SourceEntry] = []
        for entry, future in zip(batch, hashing, strict=True):
            try:
                copied[entry.path] = copied_from(entry, future.result())
                sendable.append(entry)
            except TransferError as failure:
                self._note(failure)
        folder = self._incoming + b"/%d" % number
        spoiled = self._send(folder, sendable)
        whole = [file for path, file in copied.items() if path not in spoiled]
        if not whole:
            return
        before_landing(whole)
        aside = [
            (self._target + b"/" + file.path, self._incoming + b"/aside/%d-%d" % (number, place))
            for place, file in enumerate(whole)
            if file.path in self._replaceable
        ]
        if aside:
            self._far.move(aside)
        refused = self._far.land(folder, self._target, whole, sorted(spoiled))
        if refused is not None:
            self._refuse_differing(whole, refused)
        self.landed += whole
        self._progress.advance(len(whole), 0, whole[-1].path)

    def _send(self, folder: bytes, entries: Sequence[SourceEntry]) -> set[bytes]:
        """Files that changed on this machine while they were sent."""
        spoiled: set[bytes] = set()
        if not entries:
            return spoiled

        def moved(nbytes: int, current: bytes) -> None:
            self._progress.advance(0, nbytes, current)

        try:
            self._far.send(self._folder, folder, entries, moved)
            return self._touched(entries)
        except TransferError:
            spoiled = self._touched(entries)
            if not spoiled:
                raise
        rest = [entry for entry in entries if entry.path not in spoiled]
        if rest:
            self._far.send(self._folder, folder, rest, moved)
        return spoiled | self._touched(rest)

    def _touched(self, entries: Sequence[SourceEntry]) -> set[bytes]:
        touched = set()
        for entry in entries:
            try:
                self._source.refuse_if_touched(entry)
            except TransferError as failure:
                self._note(failure)
                touched.add(entry.path)
        return touched

    def _note(self, failure: TransferError) -> None:
        if failure.kind not in LOCAL_FAILURES:
            raise failure
        self.failures.append(failure)

    def _refuse_differing(self, whole: Sequence[CopiedFile], refused: NotLanded) -> None:
        """Names that were taken at the last moment: the same content is accepted as it is."""
        present = self._far.names(self._target)
        absent = [path for path in refused.paths if path not in present]
        if absent:
            raise refused.error
        taken = {path: present[path] for path in refused.paths}
        there = present_digests(self._far, self._target, taken, max(name.size for name in taken.values()))
        differing = [
            Different(file.path, there.get(file.path), file.sha256)
            for file in whole
            if file.path in taken and there.get(file.path) != file.sha256
        ]
        if differing:
            raise differing_error(differing)


def _batches(entries: Sequence[SourceEntry]) -> Iterator[list[SourceEntry]]:
    batch: list[SourceEntry] = []
    nbytes = 0
    for entry in entries:
        if batch and (len(batch) == _BATCH_FILES or nbytes + entry.size > _BATCH_BYTES):
            yield batch
            batch, nbytes = [], 0
        batch.append(entry)
        nbytes += entry.size
    if batch:
        yield batch
