"""Verification: what a mounted destination holds, read past this machine's cache and compared (SPEC §4)."""

from __future__ import annotations

import hashlib
import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from typing import NamedTuple

from libs.run_tree.beneath import link_beneath
from libs.run_tree.folder_in_hand import FolderInHand
from libs.run_tree.manifest import is_changing_file
from services.sync_engine.transfer.block_stream import Streamed
from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.path_order import InStep
from services.sync_engine.transfer.present import PresentName, names_present
from services.sync_engine.transfer.spilled_list import ListWriter, spilled
from services.sync_engine.transfer.storage_witness import OF_ONE_FILE, StorageWitness
from services.sync_engine.transfer.system_error import destination_error, shown, words_of
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EntryKind,
    EvidenceGrade,
    FailureKind,
    FileEvidence,
    Progress,
    ProgressPhase,
    TransferError,
    UnreadableFile,
    VerifyOutcome,
)
from services.sync_engine.transfer.uncached_read import NotAFileError, hash_opened, open_uncached

METHOD = "uncached_read"
_CHUNK_FILES = 64
_CHUNK_BYTES = 8 << 20
_CHUNKS_IN_WORK = 64
_MOST_IN_A_ROW = 20
"""Files that can't be read one after the other: more are a storage that lost its disks, and others out of memory."""


class _Verdict(Enum):
    MATCHED = "matched"
    DIFFERS = "differs"
    MISSING = "missing"


class _Expected(NamedTuple):
    """A file, and what has its name at the destination."""

    file: CopiedFile
    there: PresentName | None


class _Checked(NamedTuple):
    """`words`: what the system said of a file that it can't read."""

    file: CopiedFile
    verdict: _Verdict
    evidence: FileEvidence | None
    words: str = ""


class _Reader:
    def __init__(
        self,
        root: DestinationRoot,
        target: bytes,
        witness: StorageWitness,
        control: TransferControl,
        progress: Progress,
    ) -> None:
        self._root = root
        self._target = target
        self._witness = witness
        self._control = control
        self._progress = progress
        self._unread_in_a_row = 0

    def check(self, files: Sequence[_Expected]) -> list[_Checked]:
        """All are opened before the first is read, so that the disk is busy with the next ones meanwhile."""
        steps: list[_Checked | int] = []
        try:
            with FolderInHand(dir_fd=self._root.fd) as in_hand:
                for one in files:
                    steps.append(self._open(one, in_hand))
            return [
                self._read(one, step) if isinstance(step, int) else step for one, step in zip(files, steps, strict=True)
            ]
        finally:
            for step in steps:
                if isinstance(step, int):
                    os.close(step)

    def _open(self, one: _Expected, in_hand: FolderInHand) -> _Checked | int:
        """A descriptor, or the result where that is clear without reading."""
        self._control.raise_before_file()
        file = one.file
        # The listing followed no symlink: a file behind a folder that became a symlink is not at this destination.
        if one.there is None:
            return _Checked(file, _Verdict.MISSING, None)
        if one.there.kind is not file.kind:
            return _Checked(file, _Verdict.DIFFERS, None)
        try:
            folder, name = in_hand.of(self._target + b"/" + file.path)
            if file.kind is EntryKind.SYMLINK:
                link, _ = link_beneath(name, dir_fd=folder)
                return self._judged(file, Streamed(len(link), hashlib.sha256(link).hexdigest()))
            return open_uncached(folder, name, file.size)
        except FileNotFoundError:
            return _Checked(file, _Verdict.MISSING, None)
        except NotAFileError:
            return _Checked(file, _Verdict.DIFFERS, None)
        except OSError as error:
            return self._unreadable(one, error)

    def _read(self, one: _Expected, descriptor: int) -> _Checked:
        try:
            return self._hash(one.file, descriptor)
        except OSError as error:
            return self._unreadable(one, error)

    def _unreadable(self, one: _Expected, error: OSError) -> _Checked:
        """The file's own failure, if the storage reads others before and after it fails again; else TransferError."""
        file = one.file
        failure = destination_error(error, "reading back", file.path)
        if error.errno not in OF_ONE_FILE or not self._witness.others_read(file.path):
            raise failure from error
        try:
            descriptor = open_uncached(self._root.fd, self._target + b"/" + file.path, file.size)
            try:
                return self._hash(file, descriptor)
            finally:
                os.close(descriptor)
        except NotAFileError:
            return _Checked(file, _Verdict.DIFFERS, None)
        except OSError as again:
            # Threads may overtake each other: a few more or fewer are no matter.
            self._unread_in_a_row += 1
            dead = self._unread_in_a_row > _MOST_IN_A_ROW
            if dead or again.errno not in OF_ONE_FILE or not self._witness.others_read(file.path):
                raise failure from again
            self._progress.advance(1, 0, file.path)
            return _Checked(file, _Verdict.DIFFERS, None, words_of(again))

    def _hash(self, file: CopiedFile, descriptor: int) -> _Checked:
        """OSError."""
        self._control.raise_if_stopped()
        streamed_bytes = 0

        def on_bytes(count: int) -> None:
            nonlocal streamed_bytes
            streamed_bytes += count
            self._control.raise_if_stopped()
            self._progress.advance(0, count, file.path)

        try:
            streamed = hash_opened(descriptor, file.size, on_bytes)
        except NotAFileError:
            return _Checked(file, _Verdict.DIFFERS, None)
        self._unread_in_a_row = 0
        self._progress.advance(1, streamed.size - streamed_bytes, file.path)
        return self._judged(file, streamed)

    def _judged(self, file: CopiedFile, read: Streamed) -> _Checked:
        if read.size > file.size:
            # A longer file isn't read to its end: the hash of its begin is evidence of nothing.
            return _Checked(file, _Verdict.DIFFERS, None)
        matched = read.sha256 == file.sha256 and read.size == file.size
        evidence = FileEvidence(file.path, read.size, read.sha256, EvidenceGrade.E4, file.kind)
        return _Checked(file, _Verdict.MATCHED if matched else _Verdict.DIFFERS, evidence)


def read_back(
    root: DestinationRoot,
    target: bytes,
    expected: Sequence[CopiedFile],
    whole: Sequence[CopiedFile],
    *,
    control: TransferControl,
    progress: Progress,
) -> VerifyOutcome:
    """A file that the storage can't read although it reads others differs. Raises TransferError when a file could not
    be checked, or the destination vanished meanwhile."""
    progress.begin(ProgressPhase.VERIFYING, len(expected), sum(file.size for file in expected))
    present = spilled(PresentName, names_present(root, target))
    reader = _Reader(root, target, StorageWitness(root, target, present), control, progress)
    found = _Found()
    in_work: deque[Future[list[_Checked]]] = deque()
    with (
        ThreadPoolExecutor(max_workers=root.filesystem.workers, thread_name_prefix="verify") as small,
        ThreadPoolExecutor(max_workers=root.filesystem.streams, thread_name_prefix="verify large") as large,
    ):
        try:
            there = InStep(present)
            for chunk in _chunks(_Expected(file, there.at(file.path)) for file in expected):
                threads = large if chunk[0].file.size > _CHUNK_BYTES else small
                in_work.append(threads.submit(reader.check, chunk))
                if len(in_work) == _CHUNKS_IN_WORK:
                    found.note(in_work.popleft().result())
            while in_work:
                found.note(in_work.popleft().result())
        except BaseException:
            small.shutdown(wait=True, cancel_futures=True)
            large.shutdown(wait=True, cancel_futures=True)
            raise
    found.refuse_if_none_was_read()
    # A destination that went away looks empty; that is no missing file but a check that couldn't check.
    root.refuse_if_gone()
    return found.outcome(_unexpected(present, whole), root.filesystem.note)


def _chunks(files: Iterable[_Expected]) -> Iterator[list[_Expected]]:
    """Cut at 64 files or 8 MiB: of large files each is a thread's own, for hashing is what takes its time."""
    chunk: list[_Expected] = []
    nbytes = 0
    for one in files:
        if chunk and (len(chunk) == _CHUNK_FILES or nbytes + one.file.size > _CHUNK_BYTES):
            yield chunk
            chunk, nbytes = [], 0
        chunk.append(one)
        nbytes += one.file.size
    if chunk:
        yield chunk


def _unexpected(present: Sequence[PresentName], expected: Sequence[CopiedFile]) -> tuple[bytes, ...]:
    known = InStep(expected)
    return tuple(
        name.path
        for name in present
        if name.kind is not EntryKind.DIRECTORY and known.at(name.path) is None and not is_changing_file(name.path)
    )


class _Found:
    """What the files of one reading came to, noted in the order of their paths."""

    def __init__(self) -> None:
        self._expected = self._hashed = self._matched = 0
        self._missing: list[bytes] = []
        self._differing: list[bytes] = []
        self._unreadable: list[UnreadableFile] = []
        self._evidence = ListWriter(FileEvidence)

    def note(self, checked: Sequence[_Checked]) -> None:
        for one in checked:
            if one.evidence is not None:
                self._evidence.append(one.evidence)
            if one.verdict is _Verdict.MISSING:
                self._missing.append(one.file.path)
            elif one.verdict is _Verdict.DIFFERS:
                self._differing.append(one.file.path)
            if one.words:
                self._unreadable.append(UnreadableFile(one.file.path, one.words))
            if one.file.kind is EntryKind.FILE:
                self._expected += 1
                self._hashed += one.evidence is not None
                self._matched += one.verdict is _Verdict.MATCHED

    def refuse_if_none_was_read(self) -> None:
        """TransferError when there were several files, and the storage could read none."""
        if len(self._unreadable) > 1 and not self._hashed:
            first = self._unreadable[0]
            raise TransferError(
                FailureKind.NETWORK,
                f"reading back at the destination: not one file can be read: {shown(first.path)}: {first.words}",
                [file.path for file in self._unreadable],
            )

    def outcome(self, unexpected: tuple[bytes, ...], note: str) -> VerifyOutcome:
        return VerifyOutcome(
            expected=self._expected,
            hashed=self._hashed,
            matched=self._matched,
            missing=tuple(self._missing),
            differing=tuple(self._differing),
            unexpected=unexpected,
            evidence=self._evidence.finish(),
            method=METHOD,
            grade=EvidenceGrade.E4,
            host=socket.gethostname(),
            note=note,
            unreadable=tuple(self._unreadable),
        )
