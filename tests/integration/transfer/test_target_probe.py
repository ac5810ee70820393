"""What real file systems do with names, and that a collision is refused where it would happen."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.incoming import INCOMING
from services.sync_engine.transfer.target_probe import probe_target
from services.sync_engine.transfer.transport import TargetTraits

FOLDER = INCOMING + b"/job-1"


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "memory"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_what_a_killed_engine_left_of_it_is_removed(tmp_path: Path) -> None:
    left = tmp_path / os.fsdecode(FOLDER) / "Case"
    left.parent.mkdir(parents=True)
    left.touch()
    with DestinationRoot(tmp_path) as root:
        probe_target(root, FOLDER)
    assert os.listdir(tmp_path / os.fsdecode(INCOMING)) == []


def test_a_memory_file_system_keeps_every_name(memory: Path) -> None:
    with DestinationRoot(memory) as root:
        assert probe_target(root, FOLDER) == TargetTraits(case_sensitive=True, max_name_bytes=255)
    assert os.listdir(memory / os.fsdecode(INCOMING)) == []


def test_the_disk_of_this_machine_is_left_as_it_was(tmp_path: Path) -> None:
    with DestinationRoot(tmp_path) as root:
        probe_target(root, FOLDER)
    assert os.listdir(tmp_path / os.fsdecode(INCOMING)) == []
