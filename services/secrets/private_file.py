"""Files that nobody else may see: opened without following links, checked, and replaced atomically. Blocking calls."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from services.secrets.errors import UnsafeModeError

_OTHERS = 0o077
_OTHERS_WRITE = 0o022


@dataclass(frozen=True, slots=True)
class Signature:
    """Tells whether a file was replaced, written or given other modes since somebody looked."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode)


@dataclass(frozen=True, slots=True)
class PrivateContent:
    """What a private file held when it had this signature."""

    data: bytes
    signature: Signature

    def __repr__(self) -> str:
        return f"PrivateContent({len(self.data)} bytes)"


def signature_of(path: Path) -> Signature | None:
    """The signature of whatever lies at `path` itself; None when nothing does."""
    try:
        return Signature.of(path.lstat())
    except FileNotFoundError:
        return None


def read_private(path: Path, *, follow_links: bool = False, limit: int = 64 << 20) -> PrivateContent:
    """The content of a file that is ours alone.

    Errors: UnsafeModeError for a link (unless followed), for something that is no regular file, for modes wider than
    0600, for another user's file, for more than `limit` bytes; OSError when the system refuses.
    """
    # O_NONBLOCK: a FIFO in its place must not hang us.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafeModeError(path, "link", "is a symbolic link") from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _check_file(path, status)
        if status.st_size > limit:
            raise UnsafeModeError(path, _mode(status), f"is larger than {limit} bytes")
        return PrivateContent(file.read(limit + 1), Signature.of(status))


def check_folder(folder: Path) -> None:
    """UnsafeModeError when others can write in `folder`, or it is another user's. OSError when it isn't there."""
    status = folder.stat()
    if status.st_uid not in (os.geteuid(), 0):
        raise UnsafeModeError(folder, _mode(status), "belongs to another user")
    if status.st_mode & _OTHERS_WRITE:
        raise UnsafeModeError(folder, _mode(status), f"can be written by others (mode {_mode(status)})")


def write_beside(path: Path, data: bytes) -> Path:
    """Writes `data`, durably and 0600, to a temporary file in the folder of `path`. Returns where."""
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def replace_with(temporary: Path, path: Path) -> None:
    """Puts the temporary file in the place of `path`, durably."""
    temporary.replace(path)
    _sync_folder(path.parent)


def place_new(temporary: Path, path: Path) -> None:
    """Gives the temporary file its name. FileExistsError when `path` is taken; then nothing changed."""
    os.link(temporary, path, follow_symlinks=False)
    temporary.unlink()
    _sync_folder(path.parent)


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeModeError(path, _mode(status), "is not a regular file")
    if status.st_uid not in (os.geteuid(), 0):
        raise UnsafeModeError(path, _mode(status), "belongs to another user")
    if status.st_mode & _OTHERS:
        raise UnsafeModeError(path, _mode(status), f"is open to others (mode {_mode(status)}; 0600 is needed)")


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
