"""Every transport against its real counterpart."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.sync_engine.transfer.bandwidth import UNLIMITED, Bandwidth
from services.sync_engine.transfer.mounted import MountedTransport
from services.sync_engine.transfer.rclone_place import RclonePlace
from services.sync_engine.transfer.rclone_remote import RcloneRemote
from services.sync_engine.transfer.remote_transport import RemoteTransport
from services.sync_engine.transfer.rsync_far import RsyncPlace
from services.sync_engine.transfer.tools import RCLONE, RSYNC, SSH, Toolbox
from services.sync_engine.transfer.transport import FailureKind, TransferError, Transport
from tests.integration.transfer.bandwidth_conformance import BandwidthConformance, LimitConformance
from tests.integration.transfer.carrying import HOSTILE_NAMES, Carrying, tree, write
from tests.integration.transfer.conformance import TransportConformance
from tests.integration.transfer.far_servers import Sshd, rclone_serving, running_samba, running_sshd
from tests.integration.transfer.links_conformance import LinksConformance, RootLinkConformance
from tests.integration.transfer.mounts_conformance import MountsConformance
from tests.integration.transfer.seals_conformance import SealsConformance
from tests.integration.transfer.second_process import running_second_process

MAX_STREAM = 1 << 30
RSYNC_TOOLS, RCLONE_TOOLS = Toolbox((RSYNC, SSH)), Toolbox((RCLONE,))


class TestMounted(TransportConformance, BandwidthConformance, LinksConformance, RootLinkConformance, MountsConformance):
    def open(self, destination: Path, bandwidth: Bandwidth = UNLIMITED) -> Transport:
        return MountedTransport(destination, bandwidth=bandwidth)


class TestMountedWithASecondProcess(TransportConformance, LinksConformance, RootLinkConformance, MountsConformance):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _second(cls) -> Iterator[None]:
        with running_second_process(fewest_files=1) as cls.second:
            yield

    def open(self, destination: Path, bandwidth: Bandwidth = UNLIMITED) -> Transport:
        return MountedTransport(destination, bandwidth=bandwidth, second=self.second)


class DiskConformance(TransportConformance, LinksConformance, MountsConformance):
    """`make` is what makes that file system."""

    make: Sequence[str]

    def open(self, destination: Path, bandwidth: Bandwidth = UNLIMITED) -> Transport:
        return MountedTransport(destination, bandwidth=bandwidth)

    @pytest.fixture(scope="class")
    @classmethod
    def disk(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
        base = tmp_path_factory.mktemp("disk")
        image, folder = base / "image", base / "mounted"
        folder.mkdir()
        with image.open("wb") as file:
            file.truncate(1 << 30)
        subprocess.run([*cls.make, str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
        yield folder
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        image.unlink()

    @pytest.fixture(autouse=True)
    def _nas(self, disk: Path, tmp_path: Path) -> Iterator[None]:
        there = disk / tmp_path.name
        there.mkdir()
        (tmp_path / "nas").mkdir()
        subprocess.run(["mount", "--bind", str(there), str(tmp_path / "nas")], check=True)
        yield
        subprocess.run(["umount", "--lazy", str(tmp_path / "nas")], check=True)


class TestBtrfs(DiskConformance):
    make = ("mkfs.btrfs", "-q")


class TestXfs(DiskConformance):
    make = ("mkfs.xfs", "-q")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("far") / "sshd") as running:
        yield running


class TestRsyncSsh(TransportConformance, SealsConformance, BandwidthConformance, LinksConformance, RootLinkConformance):
    several_batches = 90
    small_files = 200
    large_bytes = 5 << 20

    @pytest.fixture(autouse=True)
    def _far_host(self, sshd: Sshd) -> None:
        self.access = sshd.access

    def open(self, destination: Path, bandwidth: Bandwidth = UNLIMITED) -> Transport:
        place = RsyncPlace(self.access, str(destination), tools=RSYNC_TOOLS, bandwidth=bandwidth)
        return RemoteTransport(place, max_stream_bytes=MAX_STREAM, batch_files=self.several_batches // 3)


class RcloneConformance(TransportConformance, SealsConformance, LimitConformance):
    """`config` is what stands in rclone's configuration for the remote; `{port}` is that of the server."""

    config: str
    several_batches = 90
    small_files = 200
    large_bytes = 5 << 20
    keeps = frozenset({"empty folders", "far times"})
    mtime_step_ns = 1_000_000_000

    @contextmanager
    def serving(self, served: Path, folder: Path) -> Iterator[int]:
        """What serves the folder; its port."""
        yield 0

    @pytest.fixture(autouse=True)
    def _far_host(self, tmp_path: Path) -> Iterator[None]:
        served = tmp_path / "nas"
        served.mkdir()
        folder = tmp_path / "server"
        folder.mkdir()
        self.config_file = tmp_path / "rclone.conf"
        with self.serving(served, folder) as port:
            self.config_file.write_text("[far]\n" + self.config.format(port=port, served=served))
            yield

    def path_there(self, destination: Path) -> str:
        """Where the remote has the folder."""
        return ""

    def open(self, destination: Path, bandwidth: Bandwidth = UNLIMITED) -> Transport:
        remote = RcloneRemote("far", self.path_there(destination), self.config_file)
        return RemoteTransport(
            RclonePlace(remote, tools=RCLONE_TOOLS, bandwidth=bandwidth),
            max_stream_bytes=MAX_STREAM,
            batch_files=self.several_batches // 3,
        )


def utf8_names(without: bytes = b"") -> Sequence[bytes]:
    return [name for name in HOSTILE_NAMES if b"\xff" not in name and not set(name) & set(without)]


class TestRcloneLocal(
    RcloneConformance, BandwidthConformance, LinksConformance, RootLinkConformance, MountsConformance
):
    config = "type = alias\nremote = {served}\n"
    keeps = frozenset({"empty folders", "folder times", "far times"})
    names = utf8_names()
    mtime_step_ns = 1


class TestRcloneSftp(RcloneConformance, LinksConformance, RootLinkConformance):
    """The far host hashes. Times are unsigned seconds in 32 bits."""

    config = "type = sftp\n"
    keeps = frozenset({"empty folders", "folder times"})
    names = utf8_names(bytes((*range(1, 32), 127)))

    @pytest.fixture(autouse=True)
    def _sshd(self, sshd: Sshd, _far_host: None) -> None:
        user, _, host = sshd.access.target.partition("@")
        self.config_file.write_text(
            f"[far]\ntype = sftp\nhost = {host}\nport = {sshd.access.port}\nuser = {user}\n"
            f"key_file = {sshd.access.key_path}\nknown_hosts_file = {sshd.access.known_hosts}\n"
            "shell_type = unix\nhashes = sha256\nsha256sum_command = sha256sum\n"
        )

    def path_there(self, destination: Path) -> str:
        return str(destination)


class TestRcloneWebdav(RcloneConformance):
    """Every file is downloaded and hashed."""

    small_files = 100
    config = "type = webdav\nurl = http://127.0.0.1:{port}\nvendor = rclone\npacer_min_sleep = 1ms\n"
    # Its server looks a name up in either Unicode form, and by its own look-alikes of control characters.
    names = tuple(n for n in utf8_names(bytes((*range(1, 32), 127))) if n != "e\u0301.tif".encode())

    @contextmanager
    def serving(self, served: Path, folder: Path) -> Iterator[int]:
        with rclone_serving("webdav", served, folder) as port:
            yield port


class TestRcloneS3(RcloneConformance):
    """A PUT is atomic; there are no folders."""

    small_files = 100
    config = (
        "type = s3\nprovider = Rclone\nendpoint = http://127.0.0.1:{port}\nuse_multipart_uploads = false\n"
        "access_key_id = someone\nsecret_access_key = something\n"
    )
    keeps = frozenset({"far times"})
    names = TestRcloneWebdav.names

    @contextmanager
    def serving(self, served: Path, folder: Path) -> Iterator[int]:
        with rclone_serving("s3", served.parent, folder, "--auth-key", "someone,something") as port:
            yield port

    def path_there(self, destination: Path) -> str:
        return "nas"


class TestRcloneSamba(RcloneConformance):
    """Every file is downloaded and hashed."""

    small_files = 100
    config = "type = smb\nhost = 127.0.0.1\nport = {port}\nuser = guest\n"
    # One name there in either case, so two Unicode forms of it are too near as well.
    names = tuple(
        name
        for name in utf8_names(bytes((*range(1, 32), *b'<>"\\:?*|')))
        if not name.endswith((b" ", b".")) and name not in ("e\u0301.tif".encode(), b"CON")
    )

    @contextmanager
    def serving(self, served: Path, folder: Path) -> Iterator[int]:
        with running_samba(served, folder / "samba") as port:
            yield port

    def path_there(self, destination: Path) -> str:
        return "lab"

    def test_a_name_that_is_taken_in_another_case(self, carrying: Carrying) -> None:
        for name in (b"Data.bin", b"Sub/x", b"own"):
            write(carrying.source, name, b"pixels")
        for name in (b"DATA.BIN", b"SUB/theirs"):
            write(carrying.run, name, b"pixels")
        with pytest.raises(TransferError) as refused:
            carrying.copy()
        assert refused.value.kind is FailureKind.NAME_NOT_POSSIBLE
        assert refused.value.paths == (b"Data.bin", b"Sub")
        assert "Data.bin: the destination has DATA.BIN, which is the same name to it" in refused.value.message
        assert set(tree(carrying.run)) == {b"DATA.BIN", b"SUB", b"SUB/theirs"}, "nothing was sent"
        shutil.rmtree(carrying.run)
        copied = carrying.copy()
        assert carrying.verify(copied).proven
        assert carrying.verify(carrying.copy()).proven, "its own names are no others"

    def test_names_that_only_look_like_one_lie_side_by_side(self, carrying: Carrying) -> None:
        for name in ("straße", "strasse"):
            write(carrying.source, name.encode(), name.encode())
        assert carrying.verify(carrying.copy()).proven
        assert tree(carrying.run) == tree(carrying.source)
