"""What real file systems do with names, and that a collision is refused where it would happen."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.incoming import INCOMING
from services.sync_engine.transfer.mounted import MountedTransport
from services.sync_engine.transfer.target_probe import probe_target
from services.sync_engine.transfer.transport import FailureKind, TargetTraits, TransferError
from tests.integration.transfer.carrying import Carrying, tree, write

FOLDER = INCOMING + b"/job-1"


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "memory"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def windows_disk(tmp_path: Path) -> Iterator[Path]:
    """NTFS with names as Windows takes them; it can't rename without replacing."""
    folder, image = tmp_path / "nas", tmp_path / "ntfs.img"
    folder.mkdir()
    with open(image, "wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkntfs", "--force", "--fast", "--quiet", str(image)], check=True, capture_output=True)
    subprocess.run(["mount", "-t", "ntfs-3g", "-o", "loop,windows_names", str(image), str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_of_windows_is_known_before_the_first_byte(windows_disk: Path) -> None:
    job = Carrying(windows_disk.with_name("run"), windows_disk, MountedTransport(windows_disk))
    refused = {b"CON", b"a:b", b"trailing.", b" leading and trailing ", b"two\nlines", b"back\\slash\\n"}
    plain = {b"plain.txt", b"with space.txt", "ünï·光.tif".encode(), b"-rf (1)", b"quote'and.txt"}
    for name in refused | plain:
        write(job.source, name, name)
    with pytest.raises(TransferError) as error:
        job.copy()
    assert error.value.kind is FailureKind.NAME_NOT_POSSIBLE
    assert set(error.value.paths) == refused
    assert not job.run.exists()
    traits = job.transport.traits
    assert traits is not None
    assert (traits.exclusive_rename, traits.hard_links, traits.mtime_step_ns) == (False, True, 100)
    for name in refused:
        os.unlink(os.path.join(os.fsencode(job.source), name))
    outcome = job.verify(job.copy())
    assert outcome.proven
    assert outcome.note.startswith("fuseblk")
    assert tree(job.run) == {name: name for name in plain}
    assert os.listdir(windows_disk / os.fsdecode(INCOMING)) == []


def test_what_a_killed_engine_left_of_it_is_removed(tmp_path: Path) -> None:
    left = tmp_path / os.fsdecode(FOLDER) / "Case"
    left.parent.mkdir(parents=True)
    left.touch()
    with DestinationRoot(tmp_path) as root:
        probe_target(root, FOLDER)
    assert os.listdir(tmp_path / os.fsdecode(INCOMING)) == []


def test_a_memory_file_system_keeps_every_name(memory: Path) -> None:
    with DestinationRoot(memory) as root:
        assert probe_target(root, FOLDER) == TargetTraits(
            case_sensitive=True,
            max_name_bytes=255,
            folds_sharp_s=False,
            mtime_step_ns=1,
            keeps_far_times=True,
            exclusive_rename=True,
            hard_links=True,
            folder_sync=True,
        )
    assert os.listdir(memory / os.fsdecode(INCOMING)) == []


def test_the_disk_of_this_machine_is_left_as_it_was(tmp_path: Path) -> None:
    with DestinationRoot(tmp_path) as root:
        probe_target(root, FOLDER)
    assert os.listdir(tmp_path / os.fsdecode(INCOMING)) == []


def test_what_kept_it_from_trying_is_told_not_what_that_left(tmp_path: Path) -> None:
    """At each of its steps no further file can be opened."""
    said: list[str] = []
    with DestinationRoot(tmp_path) as root:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(root.fd)
        os.close(free)
        for spare in range(8):
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, hard))
            try:
                probe_target(root, FOLDER)
            except TransferError as error:
                said.append(error.message)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert said
        assert all("Too many open files" in message for message in said), said
        probe_target(root, FOLDER)
