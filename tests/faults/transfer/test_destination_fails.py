"""Destinations that are full, read-only, gone or refuse us, made for real: each in its class, with the system's
words.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from services.sync_engine.transfer.mounted import MountedTransport
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.transport import CopiedFile, FailureKind, TransferError
from tests.integration.transfer.carrying import TARGET, Carrying, tree, write

NOBODY = 65534


@pytest.fixture
def mounted(carrying: Carrying) -> Iterator[Carrying]:
    """The destination is a file system of its own, of 8 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(carrying.destination)], check=True)
    yield carrying
    subprocess.run(["umount", "-l", str(carrying.destination)], check=False, capture_output=True)


def failure(act: Callable[[], object]) -> TransferError:
    with pytest.raises(TransferError) as error:
        act()
    return error.value


def test_a_destination_without_room_is_known_before_a_byte_moves(mounted: Carrying) -> None:
    write(mounted.source, b"a", b"x" * (9 << 20))
    full = failure(mounted.copy)
    assert full.kind is FailureKind.DESTINATION_FULL
    assert "9,437,184 bytes" in full.message
    assert mounted.batches == []
    mounted.transport.check()


def test_a_destination_that_fills_up_meanwhile(mounted: Carrying) -> None:
    # Six batches: the last ones are begun after the first has landed.
    for number in range(1500):
        write(mounted.source, b"%04d" % number, b"x" * 2048)

    def fill(batch: Sequence[CopiedFile]) -> None:
        with open(mounted.destination / "filler", "wb", buffering=0) as stream:
            room = mounted.transport.free_bytes()
            assert room is not None
            stream.write(b"\0" * room)

    full = failure(lambda: mounted.copy(fill))
    assert full.kind is FailureKind.DESTINATION_FULL
    assert "No space left on device" in full.message
    landed = len(tree(mounted.run))
    assert 0 < landed < 1500
    assert set(tree(mounted.run).values()) == {b"x" * 2048}
    (mounted.destination / "filler").unlink()
    copied = mounted.copy()
    assert mounted.progress.phases[-1][1] == 1500 - landed
    assert mounted.verify(copied).proven


def test_a_full_destination_while_a_large_file_is_written(mounted: Carrying) -> None:
    write(mounted.source, b"a", b"x" * (7 << 20))
    write(mounted.destination, b"filler", b"x" * (2 << 20))
    # Asked before it was full: the answer of a server may be old.
    mounted.transport.free_bytes()
    full = failure(mounted.copy)
    assert full.kind is FailureKind.DESTINATION_FULL
    assert os.listdir(mounted.destination / ".labferry-incoming") == []


def test_a_read_only_destination_is_a_matter_of_configuration(mounted: Carrying) -> None:
    write(mounted.source, b"a", b"x")
    subprocess.run(["mount", "-o", "remount,ro", str(mounted.destination)], check=True)
    for act in (
        mounted.transport.check,
        mounted.copy,
        lambda: mounted.transport.seal(
            [SealedFile(b"p/creation.json", b"{}", 1)], job_id="job", control=mounted.control
        ),
    ):
        refusal = failure(act)
        assert refusal.kind is FailureKind.CONFIGURATION
        assert "Read-only file system" in refusal.message


def test_a_destination_that_was_never_there_is_not_made(carrying: Carrying) -> None:
    write(carrying.source, b"a", b"x")
    carrying.destination.rmdir()
    for act in (carrying.transport.check, carrying.transport.free_bytes, carrying.copy, lambda: carrying.verify([])):
        gone = failure(act)
        assert gone.kind is FailureKind.NETWORK
        assert "not mounted" in gone.message
    assert not carrying.destination.exists()


def test_a_destination_that_is_a_file_is_a_matter_of_configuration(carrying: Carrying) -> None:
    carrying.destination.rmdir()
    carrying.destination.write_text("?")
    assert failure(carrying.transport.check).kind is FailureKind.CONFIGURATION


def test_a_destination_unmounted_in_the_middle_leaves_the_mount_point_empty(mounted: Carrying) -> None:
    for number in range(600):
        write(mounted.source, b"folder%d/%03d" % (number % 7, number), b"x")

    def unmount(batch: Sequence[CopiedFile]) -> None:
        subprocess.run(["umount", "-l", str(mounted.destination)], check=True)

    gone = failure(lambda: mounted.copy(unmount))
    assert gone.kind is FailureKind.NETWORK
    assert "vanished" in gone.message
    assert os.listdir(mounted.destination) == []


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_destination_that_vanishes_in_the_middle(carrying: Carrying, how: str) -> None:
    for number in range(600):
        write(carrying.source, b"%03d" % number, b"x")

    def vanish(batch: Sequence[CopiedFile]) -> None:
        if how == "moved":
            carrying.destination.rename(carrying.destination.with_name("elsewhere"))
        else:
            shutil.rmtree(carrying.destination, ignore_errors=True)

    gone = failure(lambda: carrying.copy(vanish))
    assert gone.kind is FailureKind.NETWORK
    if how == "moved":
        carrying.destination.with_name("elsewhere").rename(carrying.destination)
    else:
        (carrying.destination / ".labferry-incoming").mkdir(parents=True, exist_ok=True)
    copied = carrying.copy()
    assert carrying.verify(copied).proven


def test_an_empty_mount_point_is_not_the_destination_that_was_used_before(mounted: Carrying) -> None:
    write(mounted.source, b"a", b"x")
    copied = mounted.copy()
    subprocess.run(["umount", "-l", str(mounted.destination)], check=True)
    for act in (mounted.transport.check, mounted.transport.free_bytes, mounted.copy, lambda: mounted.verify(copied)):
        gone = failure(act)
        assert gone.kind is FailureKind.NETWORK
        assert "Mount the destination again" in gone.message
    assert os.listdir(mounted.destination) == []


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_nobody(act: Callable[[], object]) -> TransferError:
    os.seteuid(NOBODY)
    try:
        return failure(act)
    finally:
        os.seteuid(0)


def test_a_destination_that_refuses_this_user_is_a_matter_of_configuration(open_folder: Path) -> None:
    source, destination = open_folder / "run", open_folder / "nas"
    source.mkdir()
    destination.mkdir()
    write(source, b"a", b"x")
    carrying = Carrying(source, destination, MountedTransport(destination))
    for act in (carrying.transport.check, carrying.copy):
        refusal = as_nobody(act)
        assert refusal.kind is FailureKind.CONFIGURATION
        assert "Permission denied" in refusal.message


def test_a_folder_of_another_user_keeps_its_time_and_takes_the_files(open_folder: Path) -> None:
    source, destination = open_folder / "run", open_folder / "nas"
    write(source, b"shared/a", b"x")
    write(source, b"own/b", b"x")
    os.utime(source / "shared", ns=(10**18, 10**18))
    carrying = Carrying(source, destination, MountedTransport(destination))
    (carrying.run / "shared").mkdir(parents=True)
    for folder in (destination, *carrying.run.parents[: len(TARGET.parts)], carrying.run, carrying.run / "shared"):
        if destination in (folder, *folder.parents):
            folder.chmod(0o777)
    os.seteuid(NOBODY)
    try:
        copied = carrying.copy()
        assert carrying.verify(copied).proven
    finally:
        os.seteuid(0)
    assert tree(carrying.run) == tree(source)
    assert (carrying.run / "shared").stat().st_mtime_ns != 10**18


def test_a_file_that_this_user_may_not_read_is_that_files_failure(open_folder: Path) -> None:
    source, destination = open_folder / "run", open_folder / "nas"
    source.mkdir()
    destination.mkdir()
    os.chown(destination, NOBODY, NOBODY)
    for name in (b"a", b"secret", b"z"):
        write(source, name, b"x")
    (source / "secret").chmod(0)
    carrying = Carrying(source, destination, MountedTransport(destination))
    refusal = as_nobody(carrying.copy)
    assert refusal.kind is FailureKind.LOCAL_FILE_UNREADABLE
    assert refusal.paths == (b"secret",)
    assert "Permission denied" in refusal.message
    assert tree(carrying.run) == {b"a": b"x", b"z": b"x"}


def test_a_folder_that_this_user_may_not_list_is_named(open_folder: Path) -> None:
    source, destination = open_folder / "run", open_folder / "nas"
    destination.mkdir()
    write(source, b"closed/a", b"x")
    (source / "closed").chmod(0)
    carrying = Carrying(source, destination, MountedTransport(destination))
    refusal = as_nobody(carrying.copy)
    assert refusal.kind is FailureKind.LOCAL_FILE_UNREADABLE
    assert refusal.paths == (b"closed",)
