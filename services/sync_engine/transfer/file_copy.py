"""Copying files of a run into the incoming folder: each source byte read once, hashed on the way, made durable.

A file is whole when its chunk is: names come later (landing.py). Small files are written one after the other and made
durable together. A local file that can't be copied is that file's failure; the others go on.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from libs.run_tree.folder_in_hand import FolderInHand
from libs.run_tree.libc import await_writeback, reserve_space, start_writeback
from services.sync_engine.transfer.bandwidth import BandwidthBrake
from services.sync_engine.transfer.block_stream import BLOCK_BYTES, stream_blocks
from services.sync_engine.transfer.direct_io import go_direct, write_block
from services.sync_engine.transfer.durable_together import MOST_WAITING_BYTES, make_durable
from services.sync_engine.transfer.incoming import IncomingName, NewNames
from services.sync_engine.transfer.source_file import SourceFiles, copied_from
from services.sync_engine.transfer.system_error import destination_error, source_changed, source_error
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EntryKind,
    FailureKind,
    Progress,
    SourceEntry,
    TransferError,
)

LARGE_BYTES = BLOCK_BYTES
WRITEBACK_LAG_BYTES = 64 << 20
"""Of a large file no more than this and a block are in this machine's memory alone."""
_READ_AHEAD_BYTES = 2 * BLOCK_BYTES
# Failures of one local file, which end nothing but its own way.
LOCAL_FAILURES = frozenset(
    {FailureKind.LOCAL_FILE_VANISHED, FailureKind.LOCAL_FILE_UNREADABLE, FailureKind.SOURCE_CHANGED}
)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE_MODE = 0o666


class WholeFile(NamedTuple):
    """A file that lies whole and durable in the incoming folder."""

    copied: CopiedFile
    incoming: IncomingName


@dataclass(slots=True)
class ChunkOutcome:
    """What became of a chunk: the files that are whole, and the local failures. `cut_short`: not all were begun."""

    whole: list[WholeFile] = field(default_factory=list)
    failures: list[TransferError] = field(default_factory=list)
    cut_short: bool = False


class _Unsynced:
    """Small files of a chunk that are written and not known to be durable. Their descriptors are this object's."""

    def __init__(self) -> None:
        self._files: list[tuple[SourceEntry, int]] = []
        self.nbytes = 0

    def add(self, entry: SourceEntry, descriptor: int) -> None:
        self._files.append((entry, descriptor))
        self.nbytes += entry.size

    def sync(self, progress: Progress) -> None:
        """Makes all of them durable. TransferError."""
        said = make_durable([descriptor for _, descriptor in self._files])
        for (entry, _), error in zip(self._files, said, strict=True):
            if error is not None:
                raise destination_error(error, "writing", entry.path) from error
        if self._files:
            progress.advance(len(self._files), 0, self._files[-1][0].path)

    def close(self) -> None:
        for _, descriptor in self._files:
            os.close(descriptor)


class CopyAbortedError(Exception):
    """Another part of the same copy failed; this part ends without a failure of its own."""


class FileCopier:
    """Copies chunks of one run; any number of threads may use one object."""

    def __init__(
        self,
        source: SourceFiles,
        incoming: NewNames,
        *,
        brake: BandwidthBrake,
        control: TransferControl,
        progress: Progress,
    ) -> None:
        self._source = source
        self._incoming = incoming
        self._brake = brake
        self._control = control
        self._progress = progress
        self._aborted = threading.Event()

    def abort(self) -> None:
        """Every thread ends at its next file or block with CopyAbortedError."""
        self._aborted.set()

    def _refuse_if_ended(self) -> None:
        self._control.raise_if_stopped()
        if self._aborted.is_set():
            raise CopyAbortedError

    def copy_chunk(self, entries: Sequence[SourceEntry]) -> ChunkOutcome:
        """Raises TransferError for failures of the destination, TransferStoppedError; local ones are in the outcome."""
        outcome, unsynced, in_hand = ChunkOutcome(), _Unsynced(), FolderInHand()
        try:
            for entry in entries:
                self._refuse_if_ended()
                if self._control.winding_down:
                    outcome.cut_short = True
                    break
                try:
                    outcome.whole.append(self._copy(entry, in_hand, unsynced))
                except TransferError as failure:
                    if failure.kind not in LOCAL_FAILURES:
                        raise
                    outcome.failures.append(failure)
            with self._control.quiet(unsynced.nbytes + MOST_WAITING_BYTES):
                unsynced.sync(self._progress)
        finally:
            in_hand.let_go()
            unsynced.close()
        return outcome

    def _copy(self, entry: SourceEntry, in_hand: FolderInHand, unsynced: _Unsynced) -> WholeFile:
        if entry.kind is EntryKind.SYMLINK:
            return self._copy_link(entry)
        source = self._source.open(entry, in_hand)
        try:
            if entry.size >= LARGE_BYTES:
                return self._copy_large(entry, source)
            return self._copy_small(entry, source, unsynced)
        finally:
            os.close(source)

    def _copy_small(self, entry: SourceEntry, source: int, unsynced: _Unsynced) -> WholeFile:
        content = self._source.read_whole(entry, source)
        self._brake.take(entry.size, self._control)
        name = self._incoming.new_name()
        try:
            target = os.open(name.number, _CREATE, _NEW_FILE_MODE, dir_fd=name.folder)
            unsynced.add(entry, target)
            written = os.write(target, content)
            if written < len(content):
                write_block(target, memoryview(content)[written:])
            _date(target, entry)
        except OSError as error:
            raise destination_error(error, "writing", entry.path) from error
        self._progress.advance(0, entry.size, entry.path)
        return WholeFile(copied_from(entry, hashlib.sha256(content).hexdigest()), name)

    def _copy_large(self, entry: SourceEntry, source: int) -> WholeFile:
        # Known to be another file already: nothing of a hundred gigabytes need be read to say so.
        self._source.refuse_if_changed(entry, source)
        name = self._incoming.new_name()
        try:
            target = os.open(name.number, _CREATE, _NEW_FILE_MODE, dir_fd=name.folder)
        except OSError as error:
            raise destination_error(error, "writing", entry.path) from error
        try:
            if go_direct(target):
                # Its blocks would be found one by one.
                reserve_space(target, entry.size)
            sha256 = self._stream(entry, source, target)
            self._source.refuse_if_changed(entry, source)
            self._source.refuse_if_renamed(entry)
            _date(target, entry)
            with self._control.quiet(min(entry.size, WRITEBACK_LAG_BYTES)):
                os.fsync(target)
        except OSError as error:
            raise destination_error(error, "writing", entry.path) from error
        finally:
            os.close(target)
        self._progress.advance(1, 0, entry.path)
        return WholeFile(copied_from(entry, sha256), name)

    def _stream(self, entry: SourceEntry, source: int, target: int) -> str:
        def consume(block: memoryview, offset: int) -> None:
            self._refuse_if_ended()
            if offset + len(block) > entry.size:
                raise source_changed(entry.path)
            self._brake.take(len(block), self._control)
            # The disk reads the next blocks while this one is written.
            os.posix_fadvise(source, offset + len(block), _READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
            try:
                write_block(target, block)
                start_writeback(target, offset, len(block))
                if offset >= WRITEBACK_LAG_BYTES:
                    # Else the last sync of a large file would be silent for as long as a slow server takes to get
                    # what memory holds of it, and the progress untrue.
                    await_writeback(target, offset - WRITEBACK_LAG_BYTES, len(block))
            except OSError as error:
                raise destination_error(error, "writing", entry.path) from error
            self._progress.advance(0, len(block), entry.path)

        try:
            streamed = stream_blocks(source, portion=self._brake.portion, consume=consume)
        except OSError as error:
            raise source_error(error, entry.path) from error
        if streamed.size != entry.size:
            raise source_changed(entry.path)
        return streamed.sha256

    def _copy_link(self, entry: SourceEntry) -> WholeFile:
        target = self._source.read_link(entry)
        name = self._incoming.new_name()
        try:
            os.symlink(target, name.number, dir_fd=name.folder)
            os.utime(name.number, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=name.folder, follow_symlinks=False)
        except OSError as error:
            raise destination_error(error, "making the symlink", entry.path) from error
        self._progress.advance(1, entry.size, entry.path)
        return WholeFile(copied_from(entry, hashlib.sha256(target).hexdigest()), name)


def _date(descriptor: int, entry: SourceEntry) -> None:
    os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
