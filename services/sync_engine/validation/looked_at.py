"""What a walk looked at, by its signature: as long as every signature is the same, the walk needn't be repeated."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

GRANULARITY_NS = 2_000_000_000
"""A change within the file system's own clock step leaves no trace in the times (FAT: two seconds)."""

Signature = tuple[int, int, int, int, int, int]


def signature(place: bytes) -> Signature | None:
    """Device, inode, size, mtime, ctime and mode of what has this name, no symlink followed; None when nothing has."""
    try:
        s = os.lstat(place)
    except OSError:
        return None
    return s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_mode


@dataclass(slots=True)
class LookedAt:
    """Places with their signatures as they were before each was read. `suspect`: one of them was changed so recently
    that it may change again without a trace."""

    began_ns: int = field(default_factory=time.time_ns)
    places: dict[bytes, Signature | None] = field(default_factory=dict)
    suspect: bool = False

    def note(self, place: bytes) -> None:
        """Call before the place is read."""
        found = signature(place)
        self.places.setdefault(place, found)
        # A time in the future proves nothing either: the clock was set back since.
        if found is not None and max(found[3], found[4]) > self.began_ns - GRANULARITY_NS:
            self.suspect = True

    def is_unchanged(self) -> bool:
        """Whether a walk now would see what this one saw."""
        return not self.suspect and all(signature(place) == known for place, known in self.places.items())
