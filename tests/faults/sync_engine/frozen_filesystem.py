"""A filesystem that hangs: writes wait in the kernel, and not even a signal ends them, until it is thawed again.

A real ext4 on a loop device, frozen as a dead NAS freezes: what Python can't interrupt and no timeout of a call ends.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SIZE = 64 << 20


@dataclass(frozen=True)
class FrozenFilesystem:
    """Mounted at `folder`."""

    folder: Path

    def freeze(self) -> None:
        subprocess.run(["fsfreeze", "--freeze", str(self.folder)], check=True, timeout=30)

    def thaw(self) -> None:
        subprocess.run(["fsfreeze", "--unfreeze", str(self.folder)], check=False, timeout=30, capture_output=True)


@contextmanager
def freezable(folder: Path, image: Path) -> Iterator[FrozenFilesystem]:
    """Makes and mounts it; at the end it is thawed, so that whoever hangs goes on, and unmounted."""
    with open(image, "wb") as file:
        file.truncate(_SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    filesystem = FrozenFilesystem(folder)
    try:
        yield filesystem
    finally:
        filesystem.thaw()
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
