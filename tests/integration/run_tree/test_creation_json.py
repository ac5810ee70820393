"""creation.json on a real disk, beside other programs (SPEC §2)."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from libs.run_tree.creation_errors import (
    CreationExistsError,
    CreationLockedError,
    CreationMissingError,
    CreationNotWritableError,
    CreationUnreadableError,
    SchemaMajorMismatchError,
)
from libs.run_tree.creation_json import creation_path, mutate_creation, read_creation, write_first_creation
from libs.run_tree.creation_record import CreationRecord, SyncStatus, parse_creation


def record(**changes: Any) -> CreationRecord:
    return parse_creation(json.dumps({"schema_version": "1.8", "level": "run", "created_by": "ada"} | changes).encode())


def to(status: SyncStatus) -> Callable[[CreationRecord], CreationRecord]:
    return lambda found: found.with_sync_status(status)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = creation_path(tmp_path)
    path.parent.mkdir()
    path.write_text(json.dumps({"schema_version": "1.6", "level": "run", "created_by": "ada", "odd": [1]}))
    path.chmod(0o640)
    return path


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path.parent))


def test_a_mutation_is_written_and_returned(path: Path) -> None:
    answer = mutate_creation(path, to(SyncStatus.SYNCED))
    assert read_creation(path) == answer
    assert path.read_text() == (
        '{"schema_version":"1.8","created_by":"ada","level":"run","sync_status":"synced","odd":[1]}'
    )
    assert names(path) == ["creation.json", "creation.json.lock"]


def test_nothing_is_written_when_nothing_changed(path: Path) -> None:
    before = path.stat()
    mutate_creation(path, to(SyncStatus.PENDING))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert '"1.6"' in path.read_text()


def test_owner_group_and_mode_are_kept(path: Path) -> None:
    os.chown(path, 1234, 4321)
    mutate_creation(path, to(SyncStatus.FAILED))
    after = path.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (1234, 4321, 0o640)


def test_the_lock_is_left_for_everyone_to_take(path: Path) -> None:
    mutate_creation(path, to(SyncStatus.FAILED))
    lock = path.with_name("creation.json.lock").stat()
    assert (lock.st_size, stat.S_IMODE(lock.st_mode)) == (0, 0o666)


def test_a_field_set_back_to_its_default_is_written(path: Path) -> None:
    mutate_creation(path, to(SyncStatus.SYNCED))
    mutate_creation(path, to(SyncStatus.PENDING))
    assert json.loads(path.read_text())["sync_status"] == "pending"


def test_what_the_change_raises_leaves_the_file_and_releases_the_lock(path: Path) -> None:
    before = path.read_bytes()

    def fail(found: CreationRecord) -> CreationRecord:
        raise LookupError("no")

    with pytest.raises(LookupError):
        mutate_creation(path, fail)
    assert path.read_bytes() == before
    mutate_creation(path, to(SyncStatus.SYNCED), lock_timeout=0.1)


def test_waiting_for_the_lock_is_bounded(path: Path) -> None:
    with FileLock(f"{path}.lock"), pytest.raises(CreationLockedError, match=r"0\.1 seconds"):
        mutate_creation(path, to(SyncStatus.SYNCED), lock_timeout=0.1)


def test_reading_needs_no_lock(path: Path) -> None:
    with FileLock(f"{path}.lock"):
        assert read_creation(path).sync_status is SyncStatus.PENDING


def test_a_missing_file_is_missing_and_no_lock_is_made(tmp_path: Path) -> None:
    path = creation_path(tmp_path)
    for act in (lambda: read_creation(path), lambda: mutate_creation(path, to(SyncStatus.SYNCED))):
        with pytest.raises(CreationMissingError) as error:
            act()
        assert error.value.path == path
    assert os.listdir(tmp_path) == []


def test_a_symlink_is_refused_and_its_target_untouched(path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    with pytest.raises(CreationUnreadableError, match="symlink"):
        read_creation(path)
    with pytest.raises(CreationUnreadableError, match="symlink"):
        mutate_creation(path, to(SyncStatus.SYNCED))
    assert elsewhere.read_bytes() == before


def test_a_pipe_or_folder_in_its_place_is_refused_at_once(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CreationUnreadableError):
        read_creation(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(CreationUnreadableError):
        read_creation(path)


def test_another_major_is_neither_read_nor_written(path: Path) -> None:
    path.write_text('{"schema_version":"2.0","level":"run"}')
    with pytest.raises(SchemaMajorMismatchError) as error:
        mutate_creation(path, to(SyncStatus.SYNCED))
    assert error.value.path == path
    assert path.read_text() == '{"schema_version":"2.0","level":"run"}'


def test_a_change_that_could_not_be_read_back_is_not_written(path: Path) -> None:
    before = path.read_bytes()

    def spoil(found: CreationRecord) -> CreationRecord:
        raw = dict(found.raw) | {"sync_status": "done"}
        return CreationRecord(raw, found.version, found.level, found.run_kind, found.sync_status, found.overrides)

    with pytest.raises(CreationUnreadableError):
        mutate_creation(path, spoil)
    assert path.read_bytes() == before


def test_a_first_file_is_written_once(tmp_path: Path) -> None:
    path = creation_path(tmp_path)
    path.parent.mkdir()
    write_first_creation(path, record())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(CreationExistsError):
        write_first_creation(path, record(created_by="bob"))
    assert read_creation(path).raw["created_by"] == "ada"
    assert names(path) == ["creation.json", "creation.json.lock"]


def test_a_first_file_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(CreationNotWritableError):
        write_first_creation(creation_path(tmp_path / "nowhere"), record())
    assert os.listdir(tmp_path) == []
