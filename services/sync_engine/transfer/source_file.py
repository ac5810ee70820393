"""Reading one file of a run on this machine, sure that it is the file that the scan saw, whole and unchanged."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable

from libs.run_tree.beneath import link_beneath, open_to_read, status_beneath
from libs.run_tree.folder_in_hand import FolderInHand
from services.sync_engine.transfer.block_stream import BLOCK_BYTES, stream_blocks
from services.sync_engine.transfer.system_error import source_changed, source_error
from services.sync_engine.transfer.transport import CopiedFile, EntryKind, SourceEntry


class SourceFiles:
    """The files of one run. Every method raises TransferError: SOURCE_CHANGED, LOCAL_FILE_VANISHED or
    LOCAL_FILE_UNREADABLE with the path. Any thread may call them."""

    def __init__(self, run_folder: bytes) -> None:
        self._folder = run_folder

    def open(self, entry: SourceEntry, in_hand: FolderInHand) -> int:
        """A descriptor, which the caller closes. `in_hand` is the caller's, from one file to the next."""
        try:
            folder, name = in_hand.of(self._place(entry))
            return open_to_read(name, dir_fd=folder)
        except OSError as error:
            raise source_error(error, entry.path) from error

    def open_alone(self, entry: SourceEntry) -> int:
        """As `open`, where no other file of its folder follows."""
        with FolderInHand() as in_hand:
            return self.open(entry, in_hand)

    def refuse_if_changed(self, entry: SourceEntry, descriptor: int) -> None:
        """What was read from the open file is what the scan saw. That its name still leads to it is the next scan's
        matter."""
        try:
            opened = os.fstat(descriptor)
        except OSError as error:
            raise source_error(error, entry.path) from error
        if not _is_as_scanned(opened, entry):
            raise source_changed(entry.path)

    def refuse_if_touched(self, entry: SourceEntry) -> None:
        """The name leads to what the scan saw, unchanged. Another program's reading lies between two such looks."""
        try:
            named = status_beneath(self._place(entry))
        except OSError as error:
            raise source_error(error, entry.path) from error
        if not _is_as_scanned(named, entry):
            raise source_changed(entry.path)

    def refuse_if_renamed(self, entry: SourceEntry) -> None:
        """The name still leads to the file of the scan; worth asking where reading took long."""
        try:
            named = status_beneath(self._place(entry))
        except OSError as error:
            raise source_error(error, entry.path) from error
        if named.st_ino != entry.inode:
            raise source_changed(entry.path)

    def read_whole(self, entry: SourceEntry, descriptor: int) -> bytes:
        """The content of a small file, known to be unchanged after it was read."""
        try:
            # One byte more than there should be: a file that grew shows itself.
            content = os.read(descriptor, entry.size + 1)
            while 0 < len(content) < entry.size and (more := os.read(descriptor, entry.size + 1 - len(content))):
                content += more
        except OSError as error:
            raise source_error(error, entry.path) from error
        if len(content) != entry.size:
            raise source_changed(entry.path)
        self.refuse_if_changed(entry, descriptor)
        return content

    def read_link(self, entry: SourceEntry) -> bytes:
        """The target of a symlink, known to be what the scan saw."""
        try:
            target, status = link_beneath(self._place(entry))
        except OSError as error:
            # EINVAL: it is no symlink any more.
            if error.errno == errno.EINVAL:
                raise source_changed(entry.path) from error
            raise source_error(error, entry.path) from error
        if target != entry.link_target or not _is_as_scanned(status, entry):
            raise source_changed(entry.path)
        return target

    def sha256(self, entry: SourceEntry, heard: Callable[[], None] = lambda: None) -> str:
        """The hash of a file's content or of a symlink's target, where only the hash is needed. `heard` is called for
        each block of a large file, and may raise to end it."""
        if entry.kind is EntryKind.SYMLINK:
            return hashlib.sha256(self.read_link(entry)).hexdigest()
        descriptor = self.open_alone(entry)
        try:
            if entry.size < BLOCK_BYTES:
                return hashlib.sha256(self.read_whole(entry, descriptor)).hexdigest()
            try:
                streamed = stream_blocks(descriptor, portion=lambda most: most, consume=lambda block, offset: heard())
            except OSError as error:
                raise source_error(error, entry.path) from error
            self.refuse_if_changed(entry, descriptor)
            return streamed.sha256
        finally:
            os.close(descriptor)

    def _place(self, entry: SourceEntry) -> bytes:
        return self._folder + b"/" + entry.path


def _is_as_scanned(status: os.stat_result, entry: SourceEntry) -> bool:
    return (
        status.st_size == entry.size
        and status.st_mtime_ns == entry.mtime_ns
        and status.st_ctime_ns == entry.ctime_ns
        and status.st_ino == entry.inode
    )


def copied_from(entry: SourceEntry, sha256: str) -> CopiedFile:
    """The record of a file whose bytes, as scanned, have this hash."""
    return CopiedFile(
        path=entry.path,
        size=entry.size,
        mtime_ns=entry.mtime_ns,
        ctime_ns=entry.ctime_ns,
        inode=entry.inode,
        sha256=sha256,
        kind=entry.kind,
        link_target=entry.link_target,
    )
