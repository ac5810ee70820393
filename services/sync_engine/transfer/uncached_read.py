"""Hashing what a destination really holds: read past this machine's page cache (SPEC §4, Verification).

The cached pages are dropped first, which works on pages that were synced; the copy syncs every file. A server's own
cache lies beyond us, and a memory file system has nothing behind its cache: both are said in a note.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable

from libs.run_tree.beneath import open_to_read, status_beneath
from services.sync_engine.transfer.block_stream import BLOCK_BYTES, Streamed, stream_blocks
from services.sync_engine.transfer.direct_io import go_direct


class NotAFileError(Exception):
    """Something else than a file has the name."""


def open_file(folder: int, relative: bytes) -> int:
    """Opens a file below an open folder; what the page cache holds of it is as it was. The caller closes the
    descriptor. Raises NotAFileError for a symlink, or OSError as the system says."""
    try:
        return open_to_read(relative, dir_fd=folder)
    except OSError:
        present = status_beneath(relative, dir_fd=folder)
        if stat.S_ISREG(present.st_mode):
            raise
        raise NotAFileError from None


def drop_cached(descriptor: int, expected_size: int) -> None:
    """Drops what the page cache holds of an open file, and lets the kernel begin to read it anew: several files that
    are so prepared before the first is hashed are read side by side. OSError."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    if 0 < expected_size < BLOCK_BYTES:
        os.posix_fadvise(descriptor, 0, expected_size, os.POSIX_FADV_WILLNEED)


def open_uncached(folder: int, relative: bytes, expected_size: int) -> int:
    """`open_file` and `drop_cached`."""
    descriptor = open_file(folder, relative)
    try:
        drop_cached(descriptor, expected_size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def hash_opened(
    descriptor: int, expected_size: int, on_bytes: Callable[[int], None], block_bytes: int = BLOCK_BYTES
) -> Streamed:
    """Size and SHA-256 of an open file that `drop_cached` prepared. Large ones are read `block_bytes` at a time.

    Of a file that turns out longer than expected, no more than one byte further is sure to be read: its size differs
    and that is enough. `on_bytes` hears of each block of a large file, and may raise to end it. Raises NotAFileError
    for a folder, or OSError as the system says.
    """
    try:
        if expected_size >= BLOCK_BYTES:
            # Opening may be long ago: its neighbours may be large too.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            go_direct(descriptor)
            return stream_blocks(
                descriptor,
                portion=lambda most: min(most, block_bytes),
                consume=lambda block, offset: on_bytes(len(block)),
                expected_size=expected_size,
            )
        # One byte more than there should be: a file that is longer shows itself.
        content = os.read(descriptor, expected_size + 1)
        while 0 < len(content) < expected_size and (more := os.read(descriptor, expected_size + 1 - len(content))):
            content += more
    except IsADirectoryError:
        raise NotAFileError from None
    return Streamed(len(content), hashlib.sha256(content).hexdigest())


def hash_uncached(
    folder: int,
    relative: bytes,
    expected_size: int,
    heard: Callable[[], None] = lambda: None,
    block_bytes: int = BLOCK_BYTES,
) -> Streamed:
    """Size and SHA-256 of one file; `heard` is called for each block of a large one. Errors as above."""
    descriptor = open_uncached(folder, relative, expected_size)
    try:
        return hash_opened(descriptor, expected_size, lambda count: heard(), block_bytes)
    finally:
        os.close(descriptor)
