"""What a seal puts beside the data: the final content of a changing file (SPEC §4 sealing)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A changing file's final content for the destination; `path` lies below the equipment's folder there. Content that
    grows with the run is a file on this machine, which nobody changes."""

    path: bytes
    content: bytes | Path
    mtime_ns: int

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def pieces(self) -> Iterator[bytes]:
        """The content, in blocks."""
        if isinstance(self.content, bytes):
            yield self.content
            return
        with self.content.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()
