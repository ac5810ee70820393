"""Making the small files of a chunk durable together, the cheapest way that harms nobody.

Where next to nothing waits to be written in this machine, its whole file system is synced at once: one pass of the disk
instead of one for each file. But that waits for what every program wrote there, and an instrument may have written
gigabytes: then each file is synced by itself.
"""

from __future__ import annotations

import errno
import os
import platform
import re
from collections.abc import Sequence

from libs.run_tree.libc import sync_filesystem
from services.sync_engine.transfer.filesystem_kind import is_ext4_or_xfs
from services.sync_engine.transfer.fsync_together import fsync_together

MOST_WAITING_BYTES = 64 << 20
"""What all programs wrote and no disk has yet, beyond which nobody waits for it."""
_FEWEST = 8
_NOT_ALLOWED = frozenset({errno.ENOSYS, errno.EPERM})
_VMSTAT = "/proc/vmstat"
_WAITING = re.compile(rb"^(?:nr_dirty|nr_writeback) (\d+)$", re.MULTILINE)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Linux tells of a failed write to the sync of a whole file system from here on.
_FIRST_THAT_TELLS = (5, 8)


def make_durable(descriptors: Sequence[int]) -> list[OSError | None]:
    """Of each open file of one file system what the system said, None when it is durable. Any thread may call it.

    A write that failed may be another program's: when the sync of the whole file system fails, each file is written
    and asked by itself.
    """
    if len(descriptors) < _FEWEST or not _whole_is_cheap(descriptors[0]):
        return fsync_together(descriptors)
    try:
        sync_filesystem(descriptors[0])
    except OSError as failure:
        if failure.errno not in _NOT_ALLOWED:
            for descriptor in descriptors:
                _forget_that_it_was_written(descriptor)
        return fsync_together(descriptors)
    # ext4 without a journal asks the disk to write out its cache before it hands over the last of the inodes.
    return [None] * (len(descriptors) - 1) + fsync_together(descriptors[-1:])


def _forget_that_it_was_written(descriptor: int) -> None:
    """What failed may be the record of this file's place on the disk, and the kernel tells of that once: it is to write
    it again."""
    status = os.fstat(descriptor)
    os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))


def _whole_is_cheap(descriptor: int) -> bool:
    if not _KERNEL_TELLS:
        return False
    try:
        return is_ext4_or_xfs(descriptor) and _waiting_bytes() <= MOST_WAITING_BYTES
    except OSError:
        # Nothing is known of it: each by itself is always right.
        return False


def _waiting_bytes() -> int:
    """Written by any program, and not on a disk. OSError."""
    descriptor = os.open(_VMSTAT, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)
    pages = [int(found) for found in _WAITING.findall(content)]
    if len(pages) != 2:
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA), _VMSTAT)
    return sum(pages) * _PAGE_BYTES


def _kernel_tells(release: str) -> bool:
    version = re.match(r"(\d+)\.(\d+)", release)
    return version is not None and (int(version[1]), int(version[2])) >= _FIRST_THAT_TELLS


_KERNEL_TELLS = platform.system() == "Linux" and _kernel_tells(platform.release())
