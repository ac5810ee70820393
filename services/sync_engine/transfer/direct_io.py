"""Large files past this machine's page cache: what is read back comes from the disk, and a copy takes no memory from
the instrument's own program, nor the processor's time for moving its bytes twice.

Only on file systems that do it well: btrfs would not compress what is written so, and a server does best with what its
client gathers. What can't be done so goes through the cache: the odd end of a file, or a portion of an odd size.
"""

from __future__ import annotations

import errno
import fcntl
import os

from services.sync_engine.transfer.filesystem_kind import is_ext4_or_xfs


def go_direct(descriptor: int) -> bool:
    """Blocks of this open file pass the cache from now on, if that can be. OSError."""
    if not is_ext4_or_xfs(descriptor):
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError:
        # A file system above that one, or a file whose content it keeps in a way of its own.
        return False
    return True


def read_into(descriptor: int, buffer: memoryview) -> int:
    """Bytes read; 0 at the end. OSError."""
    try:
        return os.readv(descriptor, [buffer])
    except OSError as error:
        if not _was_odd(descriptor, error):
            raise
        return os.readv(descriptor, [buffer])


def write_block(descriptor: int, block: memoryview) -> None:
    """Writes all of it. OSError."""
    while block:
        try:
            written = os.write(descriptor, block)
        except OSError as error:
            if not _was_odd(descriptor, error):
                raise
            continue
        block = block[written:]


def _was_odd(descriptor: int, error: OSError) -> bool:
    """Whether it was its size or place that was refused; the file goes through the cache then."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if error.errno != errno.EINVAL or not flags & os.O_DIRECT:
        return False
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
    return True
