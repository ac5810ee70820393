"""What kind of file system a mounted destination is: what reading it back can prove, and how it is best worked on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from libs.run_tree.libc import filesystem_type
from services.sync_engine.transfer.transport import FailureKind, TransferError

_EXT4, _XFS = 0xEF53, 0x58465342
_MEMORY = frozenset({0x01021994, 0x858458F6})
_NETWORK = frozenset({0x6969, 0xFF534D42, 0xFE534D42, 0x517B})
_FUSE = 0x65735546
# Programs that hand on what is synced, and ask their server or disk for what is read. Others answer from a cache on
# this machine, and send what was written some time later or never: rclone mount, davfs2, s3fs and the like.
_HONEST_PROGRAMS = frozenset(
    {"fuseblk", "fuse.ceph", "fuse.glusterfs", "fuse.lizardfs", "fuse.moosefs", "fuse.saunafs", "fuse.sshfs"}
)
_LOCAL_WORKERS = 3
_LOCAL_STREAMS = 4
_NETWORK_WORKERS = 8


class FilesystemKind(StrEnum):
    """Who answers."""

    DISK = "disk"
    MEMORY = "memory"
    NETWORK = "network"
    PROGRAM = "program"


@dataclass(frozen=True, slots=True)
class Filesystem:
    """The file system that a folder lies on. `name` is the kernel's, empty where it wasn't asked for."""

    kind: FilesystemKind
    name: str = ""

    @property
    def workers(self) -> int:
        """Threads that are busy with small files at once. Where a server answers, most of their time is waiting; on a
        disk of this machine more of them only wait for each other."""
        return _LOCAL_WORKERS if self.is_local else _NETWORK_WORKERS

    @property
    def streams(self) -> int:
        """Threads that are busy with a large file each. They hold Python's lock for little of their time."""
        return _LOCAL_STREAMS if self.is_local else _NETWORK_WORKERS

    @property
    def is_local(self) -> bool:
        """This machine's own disk or memory."""
        return self.kind in (FilesystemKind.DISK, FilesystemKind.MEMORY)

    @property
    def note(self) -> str:
        """What to know beside an evidence grade got on it; "" when nothing."""
        match self.kind:
            case FilesystemKind.DISK:
                return ""
            case FilesystemKind.MEMORY:
                return "memory"
            case FilesystemKind.NETWORK:
                return "network: the server's own cache was not passed"
            case FilesystemKind.PROGRAM:
                return f"{self.name}: what its program keeps was not passed"

    def refuse_unprovable(self, path: Path) -> None:
        """CONFIGURATION when what is read back there may never have left this machine."""
        if self.kind is FilesystemKind.PROGRAM and self.name not in _HONEST_PROGRAMS:
            raise TransferError(
                FailureKind.CONFIGURATION,
                f"{path} is mounted by a program ({self.name or 'fuse'}) that may answer from a cache on this machine "
                "before anything reached the storage: what is read back proves nothing. Use the transport rclone or "
                "rsync_ssh, or mount it by SMB or NFS",
            )


def filesystem_of(folder: int) -> Filesystem:
    """Of an open folder. OSError."""
    magic = filesystem_type(folder)
    if magic == _FUSE:
        return Filesystem(FilesystemKind.PROGRAM, _name_of(os.fstat(folder).st_dev))
    if magic in _MEMORY:
        return Filesystem(FilesystemKind.MEMORY)
    return Filesystem(FilesystemKind.NETWORK if magic in _NETWORK else FilesystemKind.DISK)


def _name_of(device: int) -> str:
    numbers = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            before, _, after = line.partition(" - ")
            if before.split(" ")[2] == numbers:
                return after.split(" ")[0]
    return ""


def is_ext4_or_xfs(descriptor: int) -> bool:
    """Whether an open file or folder lies on a file system that does well what others do badly or not at all: direct
    reading and writing, and being synced whole. OSError."""
    return filesystem_type(descriptor) in (_EXT4, _XFS)
