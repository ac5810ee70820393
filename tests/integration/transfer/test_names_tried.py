"""What storages with rules of their own do with names is known before the first byte, whichever way leads there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.sync_engine.transfer.bandwidth import UNLIMITED
from services.sync_engine.transfer.mounted import MountedTransport
from services.sync_engine.transfer.rclone_place import RclonePlace
from services.sync_engine.transfer.rclone_remote import RcloneRemote
from services.sync_engine.transfer.remote_transport import RemoteTransport
from services.sync_engine.transfer.rsync_far import RsyncPlace
from services.sync_engine.transfer.ssh_session import SshAccess
from services.sync_engine.transfer.tools import RCLONE, RSYNC, SSH, Toolbox
from services.sync_engine.transfer.transport import FailureKind, TransferError, Transport
from tests.integration.transfer.carrying import Carrying, tree, write
from tests.integration.transfer.far_servers import running_samba, running_sshd


@pytest.fixture
def access(tmp_path: Path) -> Iterator[SshAccess]:
    with running_sshd(tmp_path / "sshd") as sshd:
        yield sshd.access


@contextmanager
def disk_of_windows(folder: Path, driver: str, options: str) -> Iterator[Path]:
    place, image = folder / "nas", folder / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkntfs", "--fast", "--force", "--quiet", image], check=True, capture_output=True)
    subprocess.run(["mount", "-t", driver, "-o", f"loop,{options}", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def rsync_to(destination: Path, access: SshAccess) -> RemoteTransport:
    place = RsyncPlace(access, str(destination), tools=Toolbox((RSYNC, SSH)), bandwidth=UNLIMITED)
    return RemoteTransport(place, max_stream_bytes=1 << 30)


@contextmanager
def samba(folder: Path, *options: str) -> Iterator[tuple[Path, Transport]]:
    share = folder / "share"
    share.mkdir()
    with running_samba(share, folder / "samba", *options) as port:
        config = folder / "rclone.conf"
        config.write_text(f"[far]\ntype = smb\nhost = 127.0.0.1\nport = {port}\nuser = guest\n")
        place = RclonePlace(RcloneRemote("far", "lab", config), tools=Toolbox((RCLONE,)), bandwidth=UNLIMITED)
        yield share, RemoteTransport(place, max_stream_bytes=1 << 30)


def test_a_disk_of_windows_at_a_far_host(tmp_path: Path, access: SshAccess) -> None:
    with disk_of_windows(tmp_path, "ntfs-3g", "windows_names") as nas:
        job = Carrying(tmp_path / "run", nas, rsync_to(nas, access))
        refused = {b"CON", b"aux.txt", b"a:b", b"trailing.", b"trailing ", b"two\nlines", b"a\x01b", b"back\\slash"}
        plain = {b"plain.txt", b"with space.txt", "ünï·光.tif".encode(), b"-rf (1)", b"quote'and.txt", b"n" * 255}
        for name in refused | plain:
            write(job.source, name, name)
        with pytest.raises(TransferError) as error:
            job.copy()
        assert error.value.kind is FailureKind.NAME_NOT_POSSIBLE
        assert set(error.value.paths) == refused
        assert not job.run.exists()
        assert os.listdir(nas / ".labferry-incoming") == []
        for name in refused:
            os.unlink(os.path.join(os.fsencode(job.source), name))
        assert job.verify(job.copy()).proven
        assert tree(job.run) == {name: name for name in plain}


def refuses_capitals(job: Carrying) -> None:
    write(job.source, b"small.tif", b"pixels")
    with pytest.raises(TransferError, match="keeps names in another case than they are written in") as error:
        job.copy()
    assert error.value.kind is FailureKind.CONFIGURATION
    assert os.listdir(job.destination) == [".labferry-incoming"]
    assert os.listdir(job.destination / ".labferry-incoming") == []


def test_a_disk_that_keeps_names_in_small_letters(tmp_path: Path, access: SshAccess) -> None:
    with disk_of_windows(tmp_path, "lowntfs-3g", "ignore_case") as nas:
        for transport in (MountedTransport(nas), rsync_to(nas, access)):
            refuses_capitals(Carrying(tmp_path / "run", nas, transport))


@pytest.mark.parametrize(
    "options",
    [
        ("preserve case = no", "default case = lower"),
        ("preserve case = no", "default case = upper"),
        ("short preserve case = no",),
    ],
)
def test_a_share_that_keeps_names_in_one_case(tmp_path: Path, options: tuple[str, ...]) -> None:
    with samba(tmp_path, *options) as (share, transport):
        write(tmp_path / "run", b"small.tif", b"pixels")
        with pytest.raises(TransferError, match="preserve case = yes") as error:
            Carrying(tmp_path / "run", share, transport).copy()
        assert error.value.kind is FailureKind.CONFIGURATION
        assert [name.lower() for name in os.listdir(share)] == [".labferry-incoming"]
        assert [os.listdir(folder) for folder in share.iterdir()] == [[]]
        assert transport.traits is not None
        assert transport.traits.alters_case


def test_a_share_that_was_set_right_needs_no_restart(tmp_path: Path) -> None:
    with samba(tmp_path, "preserve case = no", f"include = {tmp_path}/set-right") as (share, transport):
        job = Carrying(tmp_path / "run", share, transport)
        refuses_capitals(job)
        (tmp_path / "set-right").write_text("preserve case = yes\n")
        assert job.verify(job.copy()).proven
        assert tree(job.run) == tree(job.source)
