"""A full storage behind SFTP, which has no word for it, and whose free room includes what is kept for root."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.sync_engine.transfer.bandwidth import UNLIMITED
from services.sync_engine.transfer.rclone_place import RclonePlace
from services.sync_engine.transfer.rclone_remote import RcloneRemote
from services.sync_engine.transfer.remote_transport import RemoteTransport
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.tools import RCLONE, Toolbox
from services.sync_engine.transfer.transport import FailureKind, TargetTraits, TransferError
from tests.integration.transfer.carrying import Carrying, write
from tests.integration.transfer.sftp_of_a_user import SmallSftp, small_sftp

SMALL = {b"notes.txt": b"abc", b"sub/a.csv": b"1,2\n", b"b.tif": b"x" * 30_000}


def failure(act: Callable[[], object]) -> TransferError:
    with pytest.raises(TransferError) as error:
        act()
    return error.value


@pytest.fixture(scope="module")
def server() -> Iterator[SmallSftp]:
    with small_sftp() as server:
        yield server


@pytest.fixture(scope="module")
def traits(server: SmallSftp, tmp_path_factory: pytest.TempPathFactory) -> TargetTraits | None:
    """Learned while there was room."""
    folder = tmp_path_factory.mktemp("roomy")
    job = Carrying(folder / "run", server.folder, over_sftp(server, folder))
    write(job.source, b"a", b"x")
    job.copy()
    return job.transport.traits


@pytest.fixture
def carrying(tmp_path: Path, server: SmallSftp, traits: object) -> Carrying:
    for left in server.folder.iterdir():
        shutil.rmtree(left)
    (tmp_path / "run").mkdir()
    return Carrying(tmp_path / "run", server.folder, over_sftp(server, tmp_path))


def over_sftp(server: SmallSftp, folder: Path) -> RemoteTransport:
    config = folder / "rclone.conf"
    config.write_text(server.configuration())
    remote = RcloneRemote("far", str(server.folder), config)
    return RemoteTransport(RclonePlace(remote, tools=Toolbox((RCLONE,)), bandwidth=UNLIMITED), max_stream_bytes=1 << 30)


@pytest.mark.parametrize(
    ("names_were_tried", "blocks_left"), [(False, 0), (False, 1), (False, 20), (True, 0), (True, 3)]
)
def test_small_files_wait_however_little_is_left(
    carrying: Carrying, server: SmallSftp, traits: TargetTraits | None, blocks_left: int, names_were_tried: bool
) -> None:
    carrying.transport.check()
    if names_were_tried:
        write(carrying.source, b"before", b"x")
        carrying.copy()
    for name, content in SMALL.items():
        write(carrying.source, name, content)
    server.fill(blocks_left)
    assert (carrying.transport.free_bytes() or 0) > server.room + (1 << 20)
    try:
        full = failure(carrying.copy)
    finally:
        server.make_room()
    assert full.kind is FailureKind.DESTINATION_FULL, full
    assert re.search("SSH_FX_FAILURE|sizes differ", full.message)
    assert "counts as free what is kept for root" in full.message
    assert os.listdir(server.folder / ".labferry-incoming") == []
    copied = carrying.copy()
    assert carrying.verify(copied).proven
    assert carrying.transport.traits == traits, "nothing is learned of names from a storage without room"


def test_a_file_larger_than_what_is_left(carrying: Carrying, server: SmallSftp) -> None:
    server.fill(4 << 10)
    write(carrying.source, b"a.tif", os.urandom(server.room + (1 << 20)))
    try:
        full = failure(carrying.copy)
    finally:
        server.make_room()
    assert full.kind is FailureKind.DESTINATION_FULL, full
    assert "SSH_FX_FAILURE" in full.message


@pytest.mark.parametrize("blocks_left", [0, 1])
def test_a_seal_that_finds_no_room_is_told_so_in_the_same_words_each_time(
    carrying: Carrying, server: SmallSftp, blocks_left: int
) -> None:
    def seal(content: bytes) -> None:
        sealed = SealedFile(b"run/creation.json", content, 1_600_000_000_000_000_000)
        carrying.transport.seal([sealed], job_id="job", control=carrying.control)

    carrying.transport.check()
    seal(b"pending")
    server.fill(blocks_left)
    try:
        refused = [failure(lambda: seal(b"synced" * 2000)) for _ in range(2)]
    finally:
        server.make_room()
    assert {one.kind for one in refused} == {FailureKind.DESTINATION_FULL}, refused
    assert refused[0].message == refused[1].message
    seal(b"synced")
    assert (server.folder / "run" / "creation.json").read_bytes() == b"synced"


def test_a_storage_that_became_read_only_is_not_full(carrying: Carrying, server: SmallSftp) -> None:
    carrying.transport.check()
    write(carrying.source, b"a.tif", b"x")
    with server.read_only():
        refused = failure(carrying.copy)
    assert refused.kind is FailureKind.NETWORK, refused
