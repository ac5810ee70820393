"""The Linux calls that Python does not offer. Each raises OSError with the system's errno."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = getattr(_libc, "renameat2", None)
_RENAME_NOREPLACE = 1
_SYNC_FILE_RANGE_WRITE = 2
_SYNC_FILE_RANGE_WRITE_AND_WAIT = 7
# EPERM: a container's filter that doesn't know the call.
_NO_SYNC_FILE_RANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ESPIPE, errno.EPERM})
_FALLOC_KEEP_SIZE = 1
_NO_FALLOCATE = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM})
_AT_EMPTY_PATH = 0x1000
_STATX_DIOALIGN = 0x2000
# struct statx: 256 bytes; its first 32 bits say what is in it, and how direct reading must be aligned stands at 152.
_STATX_BYTES, _STATX_ALIGNMENT = 256, 152
# struct statfs is 120 bytes on 64-bit Linux; its first long is the type.
_STATFS_BYTES = 256


def rename_noreplace(source_folder: int, source: bytes, target_folder: int, target: bytes) -> None:
    """Moves a name, relative to open folders, unless the target exists (FileExistsError).

    EINVAL or ENOSYS: the file system or the C library can't do it.
    """
    if _renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _renameat2(source_folder, source, target_folder, target, _RENAME_NOREPLACE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(target))


def sync_filesystem(descriptor: int) -> None:
    """Makes everything durable that was written to the file system on which an open file lies."""
    if _libc.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def start_writeback(descriptor: int, offset: int, nbytes: int) -> None:
    """Asks the kernel to begin writing a range to the disk, without waiting; a hint that may be refused silently."""
    _sync_file_range(descriptor, offset, nbytes, _SYNC_FILE_RANGE_WRITE)


def await_writeback(descriptor: int, offset: int, nbytes: int) -> None:
    """Returns when a range was handed to the disk, which is not yet durable; at once where the system can't say.

    OSError for what the disk said: it says so once, and no later fsync of this descriptor would hear of it.
    """
    number = _sync_file_range(descriptor, offset, nbytes, _SYNC_FILE_RANGE_WRITE_AND_WAIT)
    if number and number not in _NO_SYNC_FILE_RANGE:
        raise OSError(number, os.strerror(number))


def _sync_file_range(descriptor: int, offset: int, nbytes: int, how: int) -> int:
    """0, or the errno."""
    call = getattr(_libc, "sync_file_range", None)
    if call is None:
        return errno.ENOSYS
    failed = call(descriptor, ctypes.c_int64(offset), ctypes.c_int64(nbytes), how) != 0
    return ctypes.get_errno() if failed else 0


def reserve_space(descriptor: int, nbytes: int) -> None:
    """Finds room on the disk for a file's first bytes, which stays without content and beyond its end; nothing where
    the file system can't. OSError for a full disk."""
    call = getattr(_libc, "fallocate", None)
    if call is None or call(descriptor, _FALLOC_KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(nbytes)) == 0:
        return
    number = ctypes.get_errno()
    if number not in _NO_FALLOCATE:
        raise OSError(number, os.strerror(number))


def direct_alignment(descriptor: int) -> int:
    """To how many bytes, in memory and in the file, direct reading of this open file is aligned; 0 where it would go
    through the cache (a journal of data, encryption, content in the inode), or Linux before 6.1 doesn't say."""
    call = getattr(_libc, "statx", None)
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    if call is None or call(descriptor, b"", _AT_EMPTY_PATH, _STATX_DIOALIGN, buffer) != 0:
        return 0
    in_memory, in_file = struct.unpack_from("II", buffer, _STATX_ALIGNMENT)
    told = struct.unpack_from("I", buffer)[0] & _STATX_DIOALIGN and in_memory and in_file
    return max(in_memory, in_file) if told else 0


def filesystem_type(descriptor: int) -> int:
    """The magic number of the file system that an open file lies on."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(descriptor, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(ctypes.cast(buffer, ctypes.POINTER(ctypes.c_long))[0]) & 0xFFFFFFFF
