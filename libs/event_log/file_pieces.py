"""Cuts a file that is being made into pieces that fit a message, and sums it up at its end."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

PIECE_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class FileSum:
    """What the whole file is: its size in bytes and the SHA-256 over it, lower-case hex."""

    size: int
    sha256: str


async def pieces(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes | FileSum, None]:
    """Pieces of at most PIECE_BYTES, then the sum. Nothing is read ahead of whoever asks for the next piece."""
    digest, size = hashlib.sha256(), 0
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        while len(waiting) >= PIECE_BYTES:
            piece = bytes(waiting[:PIECE_BYTES])
            del waiting[:PIECE_BYTES]
            digest.update(piece)
            size += len(piece)
            yield piece
    if waiting:
        piece = bytes(waiting)
        digest.update(piece)
        size += len(piece)
        yield piece
    yield FileSum(size, digest.hexdigest())
