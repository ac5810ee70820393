"""Reading small files of a disk past this machine's cache, many at once: the disk works on all of them, and no page of
the cache is made, asked or dropped. The kernel says of each file whether that can be.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

from libs.run_tree.libc import direct_alignment
from services.sync_engine.transfer.kernel_queue import Operation, Request, handle_together

_ALIGNED = 4096


class ReadTogether:
    """Reads chunks of files that were opened to be read, of one file system. Any thread may use it."""

    def __init__(self, most_files: int, most_bytes: int) -> None:
        """Of a chunk."""
        self._capacity = most_files * _ALIGNED + most_bytes
        self._idle: deque[_Buffer] = deque()

    @contextmanager
    def read(
        self, descriptors: Sequence[int], sizes: Sequence[int], heard: Callable[[], None] = lambda: None
    ) -> Iterator[list[memoryview | None]]:
        """Each file's content, valid inside; some bytes more than its size where there is more. `heard` is called as
        long as the disk gives something.

        None for one that can't be read so, fails, or has less than its size: whoever reads it otherwise passes the
        cache by other means. ValueError for a larger chunk than was said.
        """
        buffer = self._buffer()
        contents = _read(buffer, descriptors, sizes, heard)
        for descriptor, content in zip(descriptors, contents, strict=True):
            if content is None:
                fcntl.fcntl(descriptor, fcntl.F_SETFL, 0)
        yield contents
        self._idle.append(buffer)

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


def _read(
    buffer: _Buffer, descriptors: Sequence[int], sizes: Sequence[int], heard: Callable[[], None]
) -> list[memoryview | None]:
    lengths = [size // _ALIGNED * _ALIGNED + _ALIGNED for size in sizes]
    if sum(lengths) > len(buffer.view):
        raise ValueError("a chunk is larger than was said")
    begins = list(accumulate(lengths, initial=0))[:-1]
    places = [place for place, descriptor in enumerate(descriptors) if _go_direct(descriptor)]
    requests = [
        Request(descriptors[place], Operation.READ, buffer.address + begins[place], lengths[place]) for place in places
    ]
    contents: list[memoryview | None] = [None] * len(descriptors)
    for place, result in zip(places, handle_together(requests, heard), strict=True):
        if result is not None and result >= sizes[place]:
            contents[place] = buffer.view[begins[place] : begins[place] + result]
    return contents


def _go_direct(descriptor: int) -> bool:
    """False where the cache would answer all the same."""
    if not 0 < direct_alignment(descriptor) <= _ALIGNED:
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_DIRECT)
    except OSError:
        return False
    return True
