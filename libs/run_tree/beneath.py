"""Opening what lies below a folder that others may write to, so that nobody can lead us elsewhere (SPEC §1).

A *place* here is an absolute path without "..", real when it was resolved (`real_place`). Whoever may write below a
root can put a symlink on the way at any moment after that; so the kernel is asked to refuse one, wherever on the path
it stands, and what was opened lies where its path says. Names in an opened folder are then reached through it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from libs.run_tree.run_path import resolve_inside

Place = Path | str | bytes

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
# Of a symlink with O_NOFOLLOW, the kernel says ENOTDIR to the one and opens the link itself for the other.
_ASKS_OTHERWISE = os.O_DIRECTORY | os.O_PATH

# From linux/openat2.h and the system call table that all architectures share since 5.6.
_OPENAT2 = 437
_AT_FDCWD = -100
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
# ENOSYS: an older kernel. EPERM: a container's filter that doesn't know the call.
_NO_OPENAT2 = frozenset({errno.ENOSYS, errno.EPERM})


class SymlinkOnTheWayError(OSError):
    """A symlink stands on the way to a place, or in it."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW_BYTES = ctypes.sizeof(_OpenHow)
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_OpenHow), ctypes.c_size_t)
_syscall.restype = ctypes.c_long


def open_beneath(place: Place, flags: int, mode: int = 0, *, dir_fd: int | None = None) -> int:
    """As `os.open`, but no symlink is followed anywhere on the way: SymlinkOnTheWayError. OSError as the system says.

    With `dir_fd`, `place` is relative to that open folder and stays below it.
    """
    path = place if isinstance(place, bytes) else os.fsencode(place)
    path = path.rstrip(b"/") or path[:1]
    if b"\0" in path:
        raise ValueError("a path holds a NUL character")
    if b".." in path and b".." in path.split(b"/"):
        raise OSError(errno.EXDEV, "'..' on the way", os.fsdecode(path))
    try:
        if dir_fd is not None and not flags & _ASKS_OTHERWISE and b"/" not in path:
            # A name in the folder itself: nothing is on the way to it.
            return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=dir_fd)
        return _open(path, flags | os.O_CLOEXEC, mode, dir_fd)
    except OSError as error:
        error.filename = os.fsdecode(path)
        if error.errno == errno.ELOOP:
            raise SymlinkOnTheWayError(errno.ELOOP, "a symlink stands on the way", error.filename) from error
        raise


@lru_cache
def _how(flags: int, mode: int, resolve: int) -> _OpenHow:
    return _OpenHow(flags, mode if flags & os.O_CREAT else 0, resolve)


def _open_by_kernel(path: bytes, flags: int, mode: int, dir_fd: int | None) -> int:
    if dir_fd is None:
        folder, how = _AT_FDCWD, _how(flags, mode, _NO_SYMLINKS | _NO_MAGICLINKS)
    else:
        folder, how = dir_fd, _how(flags, mode, _NO_SYMLINKS | _NO_MAGICLINKS | _BENEATH)
    while True:
        descriptor: int = _syscall(_OPENAT2, folder, path, how, _HOW_BYTES)
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def _open_step_by_step(path: bytes, flags: int, mode: int, dir_fd: int | None) -> int:
    """The same answers where the kernel has no openat2: each name through the folder before it."""
    if not path:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    if dir_fd is not None and path.startswith(b"/"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    *above, name = path.split(b"/")
    if flags & os.O_DIRECTORY:
        above, name = [*above, name], b"."
    start = b"/" if path.startswith(b"/") else b"."
    folder = os.open(start, _LOOK) if dir_fd is None else os.dup(dir_fd)
    try:
        for step in filter(None, above):
            below = _step(folder, step)
            os.close(folder)
            folder = below
        return _open_last(folder, name or b".", flags, mode)
    finally:
        os.close(folder)


def _step(folder: int, name: bytes) -> int:
    # Asked for a folder, the kernel says of a symlink that it is none.
    descriptor = os.open(name, _LOOK, dir_fd=folder)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        return descriptor
    os.close(descriptor)
    number = errno.ELOOP if stat.S_ISLNK(mode) else errno.ENOTDIR
    raise OSError(number, os.strerror(number))


def _open_last(folder: int, name: bytes, flags: int, mode: int) -> int:
    descriptor = os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=folder)
    asks_the_link = flags & os.O_PATH and not flags & os.O_NOFOLLOW
    if asks_the_link and stat.S_ISLNK(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return descriptor


def _has_openat2() -> bool:
    try:
        os.close(_open_by_kernel(b"/", os.O_PATH | os.O_DIRECTORY, 0, None))
    except OSError as error:
        if error.errno in _NO_OPENAT2:
            return False
        raise
    return True


_open = _open_by_kernel if _has_openat2() else _open_step_by_step


def open_to_read(place: Place, *, dir_fd: int | None = None) -> int:
    """A descriptor for reading; a named pipe there is opened without waiting for its writer. Errors as
    `open_beneath`."""
    return open_beneath(place, _READ, dir_fd=dir_fd)


@contextmanager
def folder_beneath(place: Place, *, dir_fd: int | None = None) -> Iterator[int]:
    """The open folder, for `dir_fd`. OSError."""
    descriptor = open_beneath(place, _FOLDER, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def names_beneath(place: Place) -> Iterator[Iterator[os.DirEntry[str]]]:
    """What the folder holds, as `os.scandir` gives it. Within the block an entry can be asked, without following
    symlinks. OSError."""
    folder = open_beneath(place, _FOLDER)
    try:
        with os.scandir(folder) as names:
            yield names
    finally:
        os.close(folder)


def status_beneath(place: Place, *, dir_fd: int | None = None) -> os.stat_result:
    """As `os.lstat`: the last name may be a symlink's. OSError."""
    descriptor = open_beneath(place, _LOOK, dir_fd=dir_fd)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def link_beneath(place: Place, *, dir_fd: int | None = None) -> tuple[bytes, os.stat_result]:
    """The symlink's target, and its own status. OSError: EINVAL for what is no symlink."""
    descriptor = open_beneath(place, _LOOK, dir_fd=dir_fd)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISLNK(status.st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), os.fsdecode(place))
        return os.readlink(b"", dir_fd=descriptor), status
    finally:
        os.close(descriptor)


def is_folder_beneath(place: Place) -> bool:
    """Whether a folder is there. OSError but for "not there" and symlinks."""
    try:
        return stat.S_ISDIR(status_beneath(place).st_mode)
    except (FileNotFoundError, NotADirectoryError, SymlinkOnTheWayError):
        return False


def is_taken_beneath(place: Place) -> bool:
    """Whether anything has that name. OSError but for "not there"."""
    try:
        status_beneath(place)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def make_folder_beneath(place: Path, mode: int = 0o777) -> None:
    """Makes the folder unless there is one. FileExistsError for anything else of that name; OSError."""
    with folder_beneath(place.parent) as above:
        try:
            os.mkdir(place.name, mode, dir_fd=above)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(place.name, dir_fd=above, follow_symlinks=False).st_mode):
                raise


def remove_tree_beneath(place: Path) -> None:
    """As `shutil.rmtree`. OSError."""
    with folder_beneath(place.parent) as above:
        shutil.rmtree(place.name, dir_fd=above)


def real_place(root: Path, relative: str) -> Path:
    """Where `relative` lies below the root, symlinks inside the root resolved; it need not exist. `root` is real.

    PathOutsideRootError as `resolve_inside`.
    """
    direct = root / relative
    try:
        os.close(open_beneath(direct, os.O_PATH | os.O_DIRECTORY))
        return direct
    except OSError:
        return resolve_inside(root, relative)
