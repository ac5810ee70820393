"""Reading a large file in big blocks while another core hashes the block before."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from services.sync_engine.transfer.direct_io import read_into

BLOCK_BYTES = 4 << 20
_BUFFERS = 3


class Streamed(NamedTuple):
    """What went through: bytes, and their SHA-256 in lower-case hex."""

    size: int
    sha256: str


def stream_blocks(
    descriptor: int,
    *,
    portion: Callable[[int], int],
    consume: Callable[[memoryview, int], None],
    expected_size: int | None = None,
) -> Streamed:
    """Reads to the end of the file, or until it is known to be longer than expected, hashing beside it.

    `portion(most)` is asked before each block how much to read at most; `consume(block, offset)` gets each block and
    may keep it only until it returns.
    """
    digest = hashlib.sha256()
    buffers = [memoryview(mmap.mmap(-1, BLOCK_BYTES)) for _ in range(_BUFFERS)]
    hashing: list[Future[None] | None] = [None] * _BUFFERS
    offset, turn = 0, 0
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="hash") as hasher:
        while True:
            last = hashing[turn]
            if last is not None:
                last.result()
            count = read_into(descriptor, buffers[turn][: portion(BLOCK_BYTES)])
            if count == 0:
                break
            block = buffers[turn][:count]
            hashing[turn] = hasher.submit(digest.update, block)
            consume(block, offset)
            offset += count
            if expected_size is not None and offset > expected_size:
                break
            turn = (turn + 1) % _BUFFERS
        for pending in hashing:
            if pending is not None:
                pending.result()
    return Streamed(offset, digest.hexdigest())
