"""A disk that can't be read, in one place or anywhere: a real ext4 on a loop device, and the kernel's own EIO."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_SIZE = 16 << 20
_PIECE, _BLOCK = 1 << 18, 1 << 12
_END, _AT_THE_END = "end", 1 << 15
_FIEMAP, _FIEMAP_HEADER, _EXTENT = 0xC020660B, struct.Struct("=QQLLLL"), struct.Struct("=QQQ32x")
_SHUTDOWN, _WITHOUT_FLUSHING = 0x8004587D, 2


@dataclass(frozen=True)
class FailingDisk:
    """Mounted at `folder`; `image` is what the loop device reads from."""

    folder: Path
    image: Path

    def spoil(self, *paths: Path) -> None:
        """From now on reading these files is an I/O error; every other is as sound as before."""
        self._move_to_the_end(paths)
        begin = min(extent.physical for path in paths for extent in extents(path))
        others = [p for p in self.folder.rglob("*") if p.is_file() and p not in paths]
        assert all(extent.physical + extent.length <= begin for p in others for extent in extents(p))
        # The loop device gives an I/O error for what lies behind the end of its file.
        os.truncate(self.image, begin)

    def die(self) -> None:
        """From now on reading anything that isn't in memory is an I/O error; names are still listed."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSHING))
        finally:
            os.close(descriptor)

    def _move_to_the_end(self, paths: Sequence[Path]) -> None:
        filler = self.folder / "filler"
        _fill(filler)
        (self.folder / _END).unlink()
        os.sync()
        for path in paths:
            shutil.copy2(path, path.with_name(f"moved {path.name}"))
        os.sync()
        for path in paths:
            os.rename(path.with_name(f"moved {path.name}"), path)
        filler.unlink()
        os.sync()


def _take_back_what_is_reserved(folder: Path) -> None:
    device = os.stat(folder).st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    Path(f"/sys/fs/ext4/{name}/reserved_clusters").write_text("0", encoding="ascii")


def _fill(path: Path) -> None:
    """A file that takes all the room there is, to the last block."""
    size = 0
    with open(path, "wb") as file:
        for piece in (_PIECE, _BLOCK):
            with suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), size, piece)
                    size += piece
    os.sync()


def _keep_the_end(path: Path) -> None:
    """A file that takes the last room of an empty disk."""
    _fill(path)
    size = path.stat().st_size
    last = max(extents(path), key=lambda extent: extent.physical)
    end = last.logical + last.length
    for begin, until in ((0, end - _AT_THE_END), (end, size)):
        if begin < until:
            command = ["fallocate", "--punch-hole", "--offset", str(begin), "--length", str(until - begin), str(path)]
            subprocess.run(command, check=True)
    os.sync()


class _Extent(NamedTuple):
    """A piece of a file: where in the file and where on the disk it begins, in bytes."""

    logical: int
    physical: int
    length: int


def extents(path: Path) -> list[_Extent]:
    most = 64
    found = bytearray(_FIEMAP_HEADER.pack(0, 2**64 - 1, 1, 0, most, 0) + bytes(most * _EXTENT.size))
    with open(path, "rb") as file:
        fcntl.ioctl(file.fileno(), _FIEMAP, found, True)
    count = _FIEMAP_HEADER.unpack_from(found)[3]
    return [_Extent(*_EXTENT.unpack_from(found, _FIEMAP_HEADER.size + n * _EXTENT.size)) for n in range(count)]


@contextmanager
def failing_disk(folder: Path) -> Iterator[FailingDisk]:
    """Makes it beside `folder` and mounts it there."""
    image = folder.with_name(f"{folder.name}.image")
    with open(image, "wb") as file:
        file.truncate(_SIZE)
    command = ["mkfs.ext4", "-q", "-b", str(_BLOCK), "-m", "0", "-O", "^has_journal", str(image)]
    subprocess.run(command, check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    try:
        _take_back_what_is_reserved(folder)
        _keep_the_end(folder / _END)
        yield FailingDisk(folder, image)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
