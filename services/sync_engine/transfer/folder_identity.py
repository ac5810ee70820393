"""Which folder a path really leads to, whatever it is called: through symlinks, and mounts of one folder twice."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_Inode = tuple[int, int]


@dataclass(frozen=True, slots=True)
class FolderIdentity:
    """Device and inode of a folder, and of each folder above it."""

    own: _Inode
    above: frozenset[_Inode]

    def overlaps(self, other: FolderIdentity) -> bool:
        """Whether one is the other, or lies in it."""
        return self.own == other.own or self.own in other.above or other.own in self.above


def folder_identity(path: Path, descriptor: int | None = None) -> FolderIdentity:
    """`descriptor`: the open folder, where it is open already. OSError when the path leads nowhere."""
    real = Path(os.path.realpath(path))
    own = _inode(os.stat(real) if descriptor is None else os.fstat(descriptor))
    return FolderIdentity(own, frozenset(_inode(os.stat(folder)) for folder in real.parents))


def _inode(status: os.stat_result) -> _Inode:
    return status.st_dev, status.st_ino
