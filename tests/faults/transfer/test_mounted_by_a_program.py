"""A destination that a program of this machine mounts: one that answers from a cache of its own is refused."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.sync_engine.transfer.filesystem_kind import Filesystem, FilesystemKind
from services.sync_engine.transfer.mounted import MountedTransport
from services.sync_engine.transfer.tool_process import find_tool
from services.sync_engine.transfer.transport import FailureKind, TransferError
from tests.integration.transfer.carrying import Carrying, write

PATIENCE = 30.0


@contextmanager
def rclone_mount(remote: Path, place: Path) -> Iterator[None]:
    """As people mount the cloud: what is written lies in a cache on this machine first."""
    command = [
        find_tool("rclone"),
        "mount",
        str(remote),
        str(place),
        "--vfs-cache-mode",
        "full",
        "--config",
        "/dev/null",
    ]
    mount = subprocess.Popen([*command, "--cache-dir", str(place.parent / "cache"), "--vfs-write-back", "1h"])
    try:
        end = time.monotonic() + PATIENCE
        while not os.path.ismount(place):
            assert mount.poll() is None and time.monotonic() < end
            os.sched_yield()
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        mount.wait(PATIENCE)


def test_what_may_never_have_left_this_machine_is_refused(tmp_path: Path) -> None:
    (source := tmp_path / "run").mkdir()
    (cloud := tmp_path / "cloud").mkdir()
    (place := tmp_path / "nas").mkdir()
    write(source, b"a.tif", b"measured once")
    with rclone_mount(cloud, place):
        # What the program says that it holds is nowhere else.
        write(place, b"b.tif", b"measured once")
        assert (place / "b.tif").read_bytes() == b"measured once"
        assert not list(cloud.iterdir())
        job = Carrying(source, place, MountedTransport(place))
        for attempt in (job.transport.check, job.copy, lambda: job.verify(())):
            with pytest.raises(TransferError, match=r"fuse\.rclone") as refused:
                attempt()
            assert refused.value.kind is FailureKind.CONFIGURATION


@pytest.mark.parametrize("name", ["fuseblk", "fuse.sshfs", "fuse.glusterfs"])
def test_programs_that_hand_on_what_is_synced_are_no_secret(name: str) -> None:
    filesystem = Filesystem(FilesystemKind.PROGRAM, name)
    filesystem.refuse_unprovable(Path("/nas"))
    assert name in filesystem.note
