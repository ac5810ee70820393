"""The Linux calls that Python does not offer. Each raises OSError with the system's errno."""

from __future__ import annotations

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)
_RENAME_NOREPLACE = 1
_SYNC_FILE_RANGE_WRITE = 2
# struct statfs is 120 bytes on 64-bit Linux; its first long is the type.
_STATFS_BYTES = 256


def rename_noreplace(source_folder: int, source: bytes, target_folder: int, target: bytes) -> None:
    """Moves a name, relative to open folders, unless the target exists (FileExistsError).

    EINVAL or ENOSYS: the file system or the C library can't do it.
    """
    call = getattr(_libc, "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(source_folder, source, target_folder, target, _RENAME_NOREPLACE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(target))


def start_writeback(descriptor: int, offset: int, nbytes: int) -> None:
    """Asks the kernel to begin writing a range to the disk, without waiting; a hint that may be refused silently."""
    call = getattr(_libc, "sync_file_range", None)
    if call is not None:
        call(descriptor, ctypes.c_int64(offset), ctypes.c_int64(nbytes), _SYNC_FILE_RANGE_WRITE)


def filesystem_type(descriptor: int) -> int:
    """The magic number of the file system that an open file lies on."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(descriptor, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(ctypes.cast(buffer, ctypes.POINTER(ctypes.c_long))[0]) & 0xFFFFFFFF
