"""Reading back a chunk of files at a mounted destination, past this machine's cache, and judging each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from libs.run_tree.beneath import link_beneath
from libs.run_tree.folder_in_hand import FolderInHand
from services.sync_engine.transfer.block_stream import BLOCK_BYTES, Streamed
from services.sync_engine.transfer.filesystem_kind import is_ext4_or_xfs
from services.sync_engine.transfer.present import PresentName
from services.sync_engine.transfer.read_together import ReadTogether
from services.sync_engine.transfer.storage_witness import OF_ONE_FILE
from services.sync_engine.transfer.system_error import destination_error, words_of
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import CopiedFile, EntryKind, EvidenceGrade, FileEvidence, Progress
from services.sync_engine.transfer.uncached_read import (
    NotAFileError,
    drop_cached,
    hash_opened,
    open_file,
    open_uncached,
)

CHUNK_FILES = 64
CHUNK_BYTES = 8 << 20
"""A chunk is cut at so many files or bytes; one larger file is a chunk of its own."""
_MOST_IN_A_ROW = 20
"""Files that can't be read one after the other: more are a storage that lost its disks, and others out of memory."""


class Verdict(Enum):
    """What the reading of a file came to."""

    MATCHED = "matched"
    DIFFERS = "differs"
    MISSING = "missing"


class Expected(NamedTuple):
    """A file, and what has its name at the destination."""

    file: CopiedFile
    there: PresentName | None


class Checked(NamedTuple):
    """`words`: what the system said of a file that it can't read."""

    file: CopiedFile
    verdict: Verdict
    evidence: FileEvidence | None
    words: str = ""


class Witness(Protocol):
    """Knows whether a storage that can't read one file reads others."""

    def others_read(self, besides: bytes) -> bool:
        """As `StorageWitness.others_read`."""


class ChunkReader:
    """Any thread may check chunks."""

    def __init__(
        self,
        root: int,
        target: bytes,
        witness: Witness,
        control: TransferControl,
        progress: Progress,
    ) -> None:
        """`root` is the destination's open folder, and stays the caller's."""
        self._root = root
        self._target = target
        self._witness = witness
        self._control = control
        self._progress = progress
        self._unread_in_a_row = 0
        self._together = ReadTogether(CHUNK_FILES, CHUNK_BYTES) if is_ext4_or_xfs(root) else None

    def check(self, files: Sequence[Expected]) -> list[Checked]:
        """All are opened before the first is read, so that the disk is busy with several. TransferError when the
        storage itself can't be read, TransferStoppedError."""
        opened: list[int] = []
        try:
            with FolderInHand(dir_fd=self._root) as in_hand:
                steps = [self._open(one, in_hand, opened) for one in files]
            read = self._read_together(files, steps)
            for place, (one, step) in enumerate(zip(files, steps, strict=True)):
                if isinstance(step, int) and place not in read:
                    steps[place] = self._prepared(one, step)
            return [
                read[place] if place in read else self._read(one, step) if isinstance(step, int) else step
                for place, (one, step) in enumerate(zip(files, steps, strict=True))
            ]
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _open(self, one: Expected, in_hand: FolderInHand, opened: list[int]) -> Checked | int:
        """A descriptor, which is one of `opened` then, or the result where that is clear without reading."""
        self._control.raise_before_file()
        file = one.file
        # The listing followed no symlink: a file behind a folder that became a symlink is not at this destination.
        if one.there is None:
            return Checked(file, Verdict.MISSING, None)
        if one.there.kind is not file.kind:
            return Checked(file, Verdict.DIFFERS, None)
        try:
            folder, name = in_hand.of(self._target + b"/" + file.path)
            if file.kind is EntryKind.SYMLINK:
                link, _ = link_beneath(name, dir_fd=folder)
                return self._judged(file, Streamed(len(link), hashlib.sha256(link).hexdigest()))
            descriptor = open_file(folder, name)
            opened.append(descriptor)
            return descriptor
        except FileNotFoundError:
            return Checked(file, Verdict.MISSING, None)
        except NotAFileError:
            return Checked(file, Verdict.DIFFERS, None)
        except OSError as error:
            return self._unreadable(one, error)

    def _read_together(self, files: Sequence[Expected], steps: Sequence[Checked | int]) -> dict[int, Checked]:
        """The small files that could be read so, by their place."""
        places = [
            place
            for place, step in enumerate(steps)
            if isinstance(step, int) and 0 < files[place].file.size < BLOCK_BYTES
        ]
        if self._together is None or len(places) < 2:
            return {}
        descriptors = [step for place in places if isinstance(step := steps[place], int)]
        found = {}
        sizes = [files[place].file.size for place in places]
        with self._together.read(descriptors, sizes, self._control.alive) as contents:
            for place, content in zip(places, contents, strict=True):
                if content is not None:
                    self._control.raise_if_stopped()
                    file = files[place].file
                    self._unread_in_a_row = 0
                    self._progress.advance(1, min(len(content), file.size), file.path)
                    found[place] = self._judged(file, Streamed(len(content), hashlib.sha256(content).hexdigest()))
        return found

    def _prepared(self, one: Expected, descriptor: int) -> Checked | int:
        try:
            drop_cached(descriptor, one.file.size)
        except OSError as error:
            return self._unreadable(one, error)
        return descriptor

    def _read(self, one: Expected, descriptor: int) -> Checked:
        try:
            return self._hash(one.file, descriptor)
        except OSError as error:
            return self._unreadable(one, error)

    def _unreadable(self, one: Expected, error: OSError) -> Checked:
        """The file's own failure, if the storage reads others before and after it fails again; else TransferError."""
        file = one.file
        failure = destination_error(error, "reading back", file.path)
        if error.errno not in OF_ONE_FILE or not self._witness.others_read(file.path):
            raise failure from error
        try:
            descriptor = open_uncached(self._root, self._target + b"/" + file.path, file.size)
            try:
                return self._hash(file, descriptor)
            finally:
                os.close(descriptor)
        except NotAFileError:
            return Checked(file, Verdict.DIFFERS, None)
        except OSError as again:
            # Threads may overtake each other: a few more or fewer are no matter.
            self._unread_in_a_row += 1
            dead = self._unread_in_a_row > _MOST_IN_A_ROW
            if dead or again.errno not in OF_ONE_FILE or not self._witness.others_read(file.path):
                raise failure from again
            self._progress.advance(1, 0, file.path)
            return Checked(file, Verdict.DIFFERS, None, words_of(again))

    def _hash(self, file: CopiedFile, descriptor: int) -> Checked:
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
            return Checked(file, Verdict.DIFFERS, None)
        self._unread_in_a_row = 0
        self._progress.advance(1, streamed.size - streamed_bytes, file.path)
        return self._judged(file, streamed)

    def _judged(self, file: CopiedFile, read: Streamed) -> Checked:
        if read.size > file.size:
            # A longer file isn't read to its end: the hash of its begin is evidence of nothing.
            return Checked(file, Verdict.DIFFERS, None)
        matched = read.sha256 == file.sha256 and read.size == file.size
        evidence = FileEvidence(file.path, read.size, read.sha256, EvidenceGrade.E4, file.kind)
        return Checked(file, Verdict.MATCHED if matched else Verdict.DIFFERS, evidence)
