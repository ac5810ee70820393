"""Deleting the files of a ticket, after a last look at each. Blocking.

Every name is reached through open folders, from the run's own downwards, and no symlink is followed: nothing outside
the run can be meant. The last look is at what nobody else can replace any more (`set_aside`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from libs.run_tree.beneath import folder_beneath, open_beneath
from libs.run_tree.manifest import CACHE_FOLDER
from libs.run_tree.mounts_below import mounts_below
from services.sync_engine.cleanup.set_aside import KeptAsideError, delete_aside
from services.sync_engine.cleanup.writer_lease import (
    NoLeaseError,
    OpenForWritingError,
    is_still_leased,
    lease_against_writers,
)
from services.sync_engine.transfer.block_stream import BLOCK_BYTES, stream_blocks
from services.sync_engine.transfer.system_error import shown
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
    run_folder: Path,
    files: Sequence[CopiedFile],
    may: Callable[[], bool],
    heard: Callable[[], None] = lambda: None,
    too_many: Callable[[int], bool] = lambda refused: False,
    *,
    without_lease: bool = False,
) -> Deleted:
    """Deletes those files that are still exactly what the ticket says. `may` is asked right before each name goes: once
    it says no, none does any more. `heard` is called for each block of a large file, and may raise TransferStoppedError
    to the same end. `too_many`: whether so many refused files end it; what can be told of them without reading them is
    told of all before the first one goes. `without_lease`: also those of which nobody knows whether another program has
    them open for writing. OSError when the run's folder or its cache folder is gone."""
    deleted: list[CopiedFile] = []
    if not files:
        return Deleted((), ())
    with folder_beneath(run_folder) as root, folder_beneath(CACHE_FOLDER, dir_fd=root) as cache:
        if elsewhere := mounts_below(root):
            why = f"something is mounted in the run, at {shown(elsewhere[0])}: files may lie elsewhere"
            return Deleted((), [Remaining(file.path, why) for file in files])
        remaining = [told for file in files if (told := _refused_at_sight(root, file, without_lease)) is not None]
        if too_many(len(remaining)):
            return Deleted((), remaining)
        remaining = []
        deletion = _Deletion(root, cache, may, heard, without_lease)
        for file in files:
            try:
                if deletion.delete(file):
                    deleted.append(file)
            except (_EndedError, TransferStoppedError):
                break
            except (_RefusedError, KeptAsideError) as refused:
                remaining.append(Remaining(file.path, str(refused)))
            except OSError as error:
                remaining.append(Remaining(file.path, error.strerror or str(error)))
            if too_many(len(remaining)):
                break
        _remove_emptied(root, deleted)
    return Deleted(deleted, remaining)


def _refused_at_sight(root: int, file: CopiedFile, without_lease: bool) -> Remaining | None:
    if file.kind is EntryKind.SYMLINK:
        return None
    folder, _, name = file.path.rpartition(b"/")
    try:
        with _opened(root, folder) as parent, _as_ticketed(parent, name, file, without_lease):
            return None
    except FileNotFoundError:
        return None
    except _RefusedError as refused:
        return Remaining(file.path, str(refused))
    except OSError as error:
        return Remaining(file.path, error.strerror or str(error))


@dataclass(frozen=True, slots=True)
class _Deletion:
    """Of one portion; the folders are open."""

    root: int
    cache: int
    may: Callable[[], bool]
    heard: Callable[[], None]
    without_lease: bool

    def delete(self, file: CopiedFile) -> bool:
        """Whether it went; False when it was not there."""
        folder, _, name = file.path.rpartition(b"/")
        try:
            with _opened(self.root, folder) as parent:
                if file.kind is EntryKind.SYMLINK:
                    self._delete_looked_at(parent, name, file, partial(_refuse_unless_same_link, file))
                else:
                    self._delete_plain(parent, name, file)
                return True
        except FileNotFoundError:
            return False

    def _delete_plain(self, parent: int, name: bytes, file: CopiedFile) -> None:
        with _as_ticketed(parent, name, file, self.without_lease) as (descriptor, leased):
            if _hash(descriptor, file, self.heard) != file.sha256:
                raise _RefusedError("its content is not what was verified")
            look = partial(_refuse_unless_untouched, descriptor, leased, file)
            self._delete_looked_at(parent, name, file, look)

    def _delete_looked_at(self, parent: int, name: bytes, file: CopiedFile, look: Callable[[int, bytes], None]) -> None:
        # What shows here already isn't moved away from under those who use it.
        look(parent, name)
        if not self.may():
            raise _EndedError
        delete_aside(parent, name, self.cache, file.path, look)


def _refuse_unless_same_link(file: CopiedFile, folder: int, name: bytes) -> None:
    if not stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        raise _RefusedError("it is no symlink any more")
    if hashlib.sha256(os.readlink(name, dir_fd=folder)).hexdigest() != file.sha256:
        raise _RefusedError("the symlink leads elsewhere than when it was verified")


def _refuse_unless_untouched(descriptor: int, leased: bool, file: CopiedFile, folder: int, name: bytes) -> None:
    """The name leads to the open file, whose content was looked at and which nobody wrote to since."""
    opened = os.fstat(descriptor)
    _refuse_unless_as_ticketed(opened, file)
    named = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if (named.st_dev, named.st_ino) != (opened.st_dev, opened.st_ino):
        raise _RefusedError("another file has taken its place")
    if leased and not is_still_leased(descriptor):
        raise _RefusedError("another program wants to write to it")


@contextmanager
def _as_ticketed(parent: int, name: bytes, file: CopiedFile, without_lease: bool) -> Iterator[tuple[int, bool]]:
    """The open file, which looks as the ticket says and which nobody writes to, and whether a lease guards it."""
    try:
        descriptor = os.open(name, _READ, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _RefusedError("a symlink has taken its place") from error
        raise
    try:
        _refuse_unless_as_ticketed(os.fstat(descriptor), file)
        yield descriptor, _leased(descriptor, without_lease)
    finally:
        os.close(descriptor)


def _leased(descriptor: int, without_lease: bool) -> bool:
    try:
        lease_against_writers(descriptor)
    except OpenForWritingError as error:
        raise _RefusedError(str(error)) from error
    except NoLeaseError as error:
        if without_lease:
            return False
        raise _RefusedError(str(error)) from error
    return True


def _hash(descriptor: int, file: CopiedFile, heard: Callable[[], None]) -> str:
    if file.size >= BLOCK_BYTES:
        return stream_blocks(descriptor, portion=lambda most: most, consume=lambda block, offset: heard()).sha256
    with open(descriptor, "rb", buffering=0, closefd=False) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _refuse_unless_as_ticketed(status: os.stat_result, file: CopiedFile) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _RefusedError("something else than a file has taken its place")
    if (status.st_size, status.st_mtime_ns, status.st_ino) != (file.size, file.mtime_ns, file.inode):
        raise _RefusedError("its size, time or inode is not what was verified")


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
    # The cache folder forgot the names that they had last.
    for folder in {b"", CACHE_FOLDER, *folders}:
        try:
            with _opened(root, folder) as descriptor:
                os.fsync(descriptor)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in _FOLDERS_CANNOT_SYNC:
                raise
