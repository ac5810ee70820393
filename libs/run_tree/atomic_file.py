"""Replacing a file so that every reader, and every crash, sees the old content or the new one, whole (SPEC §2).

What lies in a run tree is reached through its open folder (`libs/run_tree/beneath.py`); a path alone is for places that
only their owner writes to.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import BufferedReader
from pathlib import Path

_PIECE = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MOST_AT_ONCE = 1 << 20
_FOLDERS_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP})


class NotAPlainFileError(OSError):
    """A symlink, folder or device stands where a plain file is read or written."""


class OwnerCannotBeKeptError(OSError):
    """The file belongs to another user who could no longer open what we would put in its place."""


def sync_folder(folder: Path) -> None:
    """Makes the folder's names durable. Raises OSError, but not for file systems that can't sync folders (CIFS)."""
    descriptor = os.open(folder, _FOLDER)
    try:
        sync_open_folder(descriptor)
    finally:
        os.close(descriptor)


def sync_open_folder(descriptor: int) -> None:
    """As `sync_folder`."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _FOLDERS_CANNOT_SYNC:
            raise


def read_plain_file(path: Path) -> bytes:
    """The whole content. NotAPlainFileError for a symlink or anything that is no file; OSError as the system says."""
    with _folder_of(path) as folder:
        return read_in_folder(folder, path)


def read_in_folder(folder: int, path: Path) -> bytes:
    """As `read_plain_file`, of the file that has the path's last name in an open folder."""
    descriptor = _open_plain(folder, path)
    try:
        content = os.read(descriptor, _MOST_AT_ONCE)
        while more := os.read(descriptor, _MOST_AT_ONCE):
            content += more
        return content
    finally:
        os.close(descriptor)


def open_in_folder(folder: int, path: Path) -> BufferedReader:
    """As `read_in_folder`, for content that may be long."""
    return open(_open_plain(folder, path), "rb")


def _open_plain(folder: int, path: Path) -> int:
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        descriptor = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotAPlainFileError(error.errno, "is a symlink", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotAPlainFileError(errno.EINVAL, "is no plain file", str(path))
    return descriptor


def write_atomically(path: Path, content: bytes, *, mode: int) -> None:
    """Replaces or makes the file durably. An existing one's owner, group and mode are kept; `mode` is for a new one.

    Raises NotAPlainFileError, OwnerCannotBeKeptError, or OSError as the system says; the old file is then untouched.
    """
    with _folder_of(path) as folder:
        write_in_folder(folder, path, content, mode=mode)


def write_in_folder(folder: int, path: Path, content: bytes, *, mode: int) -> None:
    """As `write_atomically`, under the path's last name in an open folder."""
    _replace_in_folder(folder, path, [content], mode)


def copy_in_folder(folder: int, path: Path, source: Path, *, mode: int) -> None:
    """As `write_in_folder`, with what another file holds."""
    with source.open("rb") as content:
        _replace_in_folder(folder, path, iter(partial(content.read, _PIECE), b""), mode)


def _replace_in_folder(folder: int, path: Path, pieces: Iterable[bytes], mode: int) -> None:
    present = _plain_file_status(folder, path)
    temporary = _write_temporary(folder, path, pieces, mode, present)
    try:
        os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        _discard(folder, temporary)
        raise
    sync_open_folder(folder)


def create_in_folder(folder: int, path: Path, content: bytes, *, mode: int) -> None:
    """Makes the file durably under the path's last name in an open folder; FileExistsError when anything has that name,
    which then stays as it is."""
    temporary = _write_temporary(folder, path, [content], mode, None)
    try:
        os.link(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    finally:
        _discard(folder, temporary)
    sync_open_folder(folder)


@contextmanager
def _folder_of(path: Path) -> Iterator[int]:
    descriptor = os.open(path.parent, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _plain_file_status(folder: int, path: Path) -> os.stat_result | None:
    try:
        present = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(present.st_mode):
        raise NotAPlainFileError(errno.EINVAL, "is no plain file", str(path))
    return present


def _write_temporary(
    folder: int, path: Path, pieces: Iterable[bytes], mode: int, present: os.stat_result | None
) -> str:
    temporary = f"{path.name}.{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        with open(descriptor, "wb", buffering=0) as stream:
            for piece in pieces:
                remaining = memoryview(piece)
                while remaining:
                    remaining = remaining[stream.write(remaining) or 0 :]
            if present is None:
                os.fchmod(descriptor, mode)
            else:
                _keep_owner_and_mode(descriptor, path, present)
            os.fsync(descriptor)
    except BaseException:
        _discard(folder, temporary)
        raise
    return temporary


def _keep_owner_and_mode(descriptor: int, path: Path, present: os.stat_result) -> None:
    ours = os.fstat(descriptor)
    if ours.st_gid != present.st_gid:
        _change_owner(descriptor, path, -1, present.st_gid)
    if ours.st_uid != present.st_uid:
        # Only root can give a file away. Where the group may read and write, both users still can; else the other is
        # locked out.
        shared = stat.S_IRGRP | stat.S_IWGRP
        if os.geteuid() == 0 or present.st_mode & shared != shared:
            _change_owner(descriptor, path, present.st_uid, -1)
    os.fchmod(descriptor, stat.S_IMODE(present.st_mode))


def _change_owner(descriptor: int, path: Path, user: int, group: int) -> None:
    try:
        os.fchown(descriptor, user, group)
    except PermissionError as error:
        raise OwnerCannotBeKeptError(
            errno.EPERM, "belongs to another user or group, whom a new file would lock out", str(path)
        ) from error


def _discard(folder: int, temporary: str) -> None:
    # A temporary that can't be removed is ignored by every reader and never travels; the first error is what matters.
    with suppress(OSError):
        os.unlink(temporary, dir_fd=folder)
