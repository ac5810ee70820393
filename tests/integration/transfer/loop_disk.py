"""A file system of its own on a loop device; what is on its disk can be seen, and spoiled, behind its back."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LEAST_OF_ALL = 320 << 20
MAKE = {
    "ext4": ("mkfs.ext4", "-q"),
    "ext4 without a journal": ("mkfs.ext4", "-q", "-O", "^has_journal"),
    "xfs": ("mkfs.xfs", "-q"),
    "btrfs": ("mkfs.btrfs", "-q"),
}


@dataclass(frozen=True)
class LoopDisk:
    """Mounted at `folder`; `image` holds what is on the disk."""

    kind: str
    folder: Path
    image: Path

    @contextmanager
    def as_after_a_power_cut(self) -> Iterator[Path]:
        """What is on the disk at this moment, mounted anew: nothing of it was in memory alone."""
        image = self.image.with_name("after the cut")
        folder = self.image.with_name("seen")
        folder.mkdir()
        subprocess.run(["cp", "--sparse=always", str(self.image), str(image)], check=True)
        with _mounted(image, folder, "loop,nouuid" if self.kind == "xfs" else "loop"):
            yield folder

    def rot(self, content: bytes) -> None:
        """Flips a byte wherever the disk holds this: in its place, and in what is left of a journal."""
        # What a journal still holds for a place would be written there later.
        subprocess.run(["fsfreeze", "--freeze", str(self.folder)], check=True)
        subprocess.run(["fsfreeze", "--unfreeze", str(self.folder)], check=True)
        held = self.image.read_bytes()
        assert content in held
        with open(self.image, "r+b") as stream:
            for found in re.finditer(re.escape(content), held):
                stream.seek(found.start())
                stream.write(bytes([content[0] ^ 1]))


@contextmanager
def loop_disk(
    kind: str, base: Path, options: str = "loop", nbytes: int = _LEAST_OF_ALL, made_with: Sequence[str] = ()
) -> Iterator[LoopDisk]:
    """`kind` is one of `MAKE`, made with further options; `options` are those of the mount."""
    image, folder = base / "image", base / "disk"
    with image.open("wb") as stream:
        stream.truncate(nbytes)
    folder.mkdir()
    subprocess.run([*MAKE[kind], *made_with, str(image)], check=True)
    with _mounted(image, folder, options):
        yield LoopDisk(kind, folder, image)
    image.unlink()


@contextmanager
def _mounted(image: Path, folder: Path, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-o", options, str(image), str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
