"""Whether other folders or files are mounted below a folder: what is seen there lies elsewhere, whatever its name says.

A device number doesn't tell: a folder that is mounted a second time (a bind mount) keeps its own.
"""

from __future__ import annotations

import os
import re

_TABLE = "/proc/self/mountinfo"
_MOUNT_POINT = 4
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def mounts_below(folder: int) -> list[bytes]:
    """Where something is mounted below an open folder, relative to it, as this process sees it. OSError."""
    above = os.readlink(os.fsencode(f"/proc/self/fd/{folder}")).rstrip(b"/") + b"/"
    with open(_TABLE, "rb") as table:
        return [point.removeprefix(above) for point in map(_mount_point, table) if point.startswith(above)]


def _mount_point(line: bytes) -> bytes:
    # Spaces and the like are octal numbers there.
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), line.split(b" ")[_MOUNT_POINT])
