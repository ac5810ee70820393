"""Reading small files of a disk past this machine's cache, many at once: the disk works on all of them, no page of the
cache is made or dropped, and the kernel's own count says that every byte came from the disk.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

from services.sync_engine.transfer.kernel_queue import Operation, Request, handle_together

_ALIGNED = 4096
_ACCOUNT = "/proc/thread-self/io"
_READ_BYTES = re.compile(rb"^read_bytes: (\d+)$", re.MULTILINE)


class ReadTogether:
    """Reads chunks of files that were opened to be read, of one file system. Any thread may use it."""

    def __init__(self, most_files: int, most_bytes: int) -> None:
        """Of a chunk."""
        self._capacity = most_files * _ALIGNED + most_bytes
        self._idle: deque[_Buffer] = deque()
        self._in_use = True

    @contextmanager
    def read(self, descriptors: Sequence[int], sizes: Sequence[int]) -> Iterator[list[memoryview | None]]:
        """Each file's content, valid inside; some bytes more than its size where there is more.

        None for one that fails or has less than its size; for all where they can't be read so, or may not have come
        from the disk: it isn't tried again then. Whoever reads those otherwise passes the cache by other means.
        """
        buffer = self._buffer()
        contents = self._read(buffer, descriptors, sizes)
        for descriptor, content in zip(descriptors, contents, strict=True):
            if content is None:
                fcntl.fcntl(descriptor, fcntl.F_SETFL, 0)
        yield contents
        self._idle.append(buffer)

    def _read(self, buffer: _Buffer, descriptors: Sequence[int], sizes: Sequence[int]) -> list[memoryview | None]:
        before = _bytes_from_disks() if self._in_use else None
        if before is None or not all(map(_go_direct, descriptors)):
            self._in_use = False
            return [None] * len(descriptors)
        lengths = [size // _ALIGNED * _ALIGNED + _ALIGNED for size in sizes]
        begins = list(accumulate(lengths, initial=0))
        results = handle_together(
            [
                Request(descriptor, Operation.READ, buffer.address + begin, length)
                for descriptor, begin, length in zip(descriptors, begins, lengths, strict=False)
            ]
        )
        after = _bytes_from_disks()
        if after is None or after - before < sum(result for result in results if result is not None and result > 0):
            self._in_use = False
            return [None] * len(descriptors)
        return [
            buffer.view[begin : begin + result] if result is not None and result >= size else None
            for begin, size, result in zip(begins, sizes, results, strict=False)
        ]

    def _buffer(self) -> _Buffer:
        try:
            return self._idle.pop()
        except IndexError:
            return _Buffer(self._capacity)


class _Buffer:
    def __init__(self, nbytes: int) -> None:
        memory = mmap.mmap(-1, nbytes)
        self.view = memoryview(memory)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _go_direct(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_DIRECT)
    except OSError:
        return False
    return True


def _bytes_from_disks() -> int | None:
    """What disks gave this thread; None where the kernel doesn't count it."""
    try:
        descriptor = os.open(_ACCOUNT, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = _READ_BYTES.search(os.read(descriptor, 4096))
    finally:
        os.close(descriptor)
    return None if found is None else int(found[1])
