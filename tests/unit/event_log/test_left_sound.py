"""A file counts as sound once, and only when nothing has touched it since it was left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from libs.event_log.left_sound import leave_sound, note_path, was_left_sound


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "read_models.sqlite3"
    path.write_bytes(b"rows" * 1000)
    leave_sound(path)
    return path


def edit(path: Path) -> None:
    status = path.stat()
    with open(path, "r+b") as file:
        file.write(b"ROWS")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def exchange(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    os.replace(copy, path)


def grow(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def begin_a_transaction(path: Path) -> None:
    Path(f"{path}-wal").write_bytes(b"")


def spoil_the_note(path: Path) -> None:
    note_path(path).write_bytes(b"{")


def lose_the_note(path: Path) -> None:
    note_path(path).unlink()


def lose_the_file(path: Path) -> None:
    path.unlink()


def test_it_counts_once(database: Path) -> None:
    assert was_left_sound(database)
    assert not was_left_sound(database)


@pytest.mark.parametrize(
    "happen", [edit, exchange, grow, begin_a_transaction, spoil_the_note, lose_the_note, lose_the_file]
)
def test_whatever_happened_to_it_has_it_checked(database: Path, happen: Callable[[Path], None]) -> None:
    happen(database)
    assert not was_left_sound(database)


def test_a_note_that_cant_be_written_is_missed_by_nobody(tmp_path: Path) -> None:
    leave_sound(tmp_path / "gone" / "read_models.sqlite3")
    assert not was_left_sound(tmp_path / "gone" / "read_models.sqlite3")
