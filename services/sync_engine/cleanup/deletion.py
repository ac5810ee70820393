"""Deleting the files of a ticket, after a last look at each. Blocking.

Every name is reached through open folders, from the run's own downwards, and no symlink is followed: nothing outside
the run can be meant.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from libs.run_tree.beneath import folder_beneath, open_beneath
from services.sync_engine.transfer.block_stream import BLOCK_BYTES, stream_blocks
from services.sync_engine.transfer.transfer_control import TransferStoppedError
from services.sync_engine.transfer.transport import CopiedFile, EntryKind

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDERS_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP})


@dataclass(frozen=True, slots=True)
class Remaining:
    """A file that is still there, and why."""

    path: bytes
    why: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a portion came to. A file that was not there any more is in neither, nor one that came after the end."""

    files: Sequence[CopiedFile]
    remaining: Sequence[Remaining]


class _EndedError(Exception):
    """No further file may be deleted."""


class _RefusedError(Exception):
    """The file is not what the ticket says; the message says what was found."""


def delete_files(
    run_folder: Path, files: Sequence[CopiedFile], may: Callable[[], bool], heard: Callable[[], None] = lambda: None
) -> Deleted:
    """Deletes those files that are still exactly what the ticket says. `may` is asked right before each name goes: once
    it says no, none does any more. `heard` is called for each block of a large file, and may raise TransferStoppedError
    to the same end. OSError when the run's folder is gone."""
    deleted: list[CopiedFile] = []
    remaining: list[Remaining] = []
    with folder_beneath(run_folder) as root:
        for file in files:
            try:
                if _delete(root, file, may, heard):
                    deleted.append(file)
            except (_EndedError, TransferStoppedError):
                break
            except _RefusedError as refused:
                remaining.append(Remaining(file.path, str(refused)))
            except OSError as error:
                remaining.append(Remaining(file.path, error.strerror or str(error)))
        _remove_emptied(root, deleted)
    return Deleted(deleted, remaining)


def _delete(root: int, file: CopiedFile, may: Callable[[], bool], heard: Callable[[], None]) -> bool:
    folder, _, name = file.path.rpartition(b"/")
    try:
        with _opened(root, folder) as parent:
            if file.kind is EntryKind.SYMLINK:
                return _delete_link(parent, name, file, may)
            return _delete_plain(parent, name, file, may, heard)
    except FileNotFoundError:
        return False


def _delete_link(parent: int, name: bytes, file: CopiedFile, may: Callable[[], bool]) -> bool:
    if not stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        raise _RefusedError("it is no symlink any more")
    if hashlib.sha256(os.readlink(name, dir_fd=parent)).hexdigest() != file.sha256:
        raise _RefusedError("the symlink leads elsewhere than when it was verified")
    _unlink(parent, name, may)
    return True


def _delete_plain(
    parent: int, name: bytes, file: CopiedFile, may: Callable[[], bool], heard: Callable[[], None]
) -> bool:
    try:
        descriptor = os.open(name, _READ, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _RefusedError("a symlink has taken its place") from error
        raise
    try:
        _refuse_unless_as_ticketed(os.fstat(descriptor), file)
        leased = _lease_against_writers(descriptor)
        if _hash(descriptor, file, heard) != file.sha256:
            raise _RefusedError("its content is not what was verified")
        opened = os.fstat(descriptor)
        _refuse_unless_as_ticketed(opened, file)
        named = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if (named.st_dev, named.st_ino) != (opened.st_dev, opened.st_ino):
            raise _RefusedError("another file has taken its place")
        if leased and fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
            raise _RefusedError("another program wants to write to it")
        _unlink(parent, name, may)
    finally:
        os.close(descriptor)
    return True


def _hash(descriptor: int, file: CopiedFile, heard: Callable[[], None]) -> str:
    if file.size >= BLOCK_BYTES:
        return stream_blocks(descriptor, portion=lambda most: most, consume=lambda block, offset: heard()).sha256
    with open(descriptor, "rb", buffering=0, closefd=False) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _unlink(parent: int, name: bytes, may: Callable[[], bool]) -> None:
    if not may():
        raise _EndedError
    os.unlink(name, dir_fd=parent)


def _refuse_unless_as_ticketed(status: os.stat_result, file: CopiedFile) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _RefusedError("something else than a file has taken its place")
    if (status.st_size, status.st_mtime_ns, status.st_ino) != (file.size, file.mtime_ns, file.inode):
        raise _RefusedError("its size, time or inode is not what was verified")


def _lease_against_writers(descriptor: int) -> bool:
    """Takes a read lease: who has the file open for writing makes that fail; who opens it later waits for us.

    False where the system gives none (a file of another user, a filesystem without leases): the other looks must do.
    """
    try:
        # A break of the lease is told by a signal; this one is ignored by default.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise _RefusedError("another program has it open for writing") from error
        return False
    return True


@contextmanager
def _opened(root: int, folder: bytes) -> Iterator[int]:
    """The folder below the run."""
    descriptor = open_beneath(folder, _FOLDER, dir_fd=root) if folder else os.dup(root)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_emptied(root: int, deleted: Sequence[CopiedFile]) -> None:
    """Syncs the folders that lost files, and removes those that hold nothing any more, the deepest first."""
    folders = {file.path.rpartition(b"/")[0] for file in deleted}
    for folder in sorted(folders, key=lambda path: path.count(b"/"), reverse=True):
        while folder:
            above, _, name = folder.rpartition(b"/")
            try:
                with _opened(root, above) as parent:
                    os.rmdir(name, dir_fd=parent)
            except OSError:
                # It holds something, is gone already, or must stay: none of it concerns the files.
                break
            folder = above
    for folder in {b"", *folders}:
        try:
            with _opened(root, folder) as descriptor:
                os.fsync(descriptor)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in _FOLDERS_CANNOT_SYNC:
                raise
