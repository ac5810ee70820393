"""The cache files beside creation.json on a real disk: whole, locked, nothing lost, absence legal (SPEC §2)."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, SoftFileLock

from libs.run_tree import record_lock
from libs.run_tree.equipment_record import (
    EquipmentRecord,
    equipment_record_path,
    note_equipment,
    read_equipment_record,
)
from libs.run_tree.group_record import GroupRecord, group_record_path, read_group_record, write_first_group_record
from libs.run_tree.ingest_record import (
    IngestHead,
    IngestStep,
    StagingState,
    ingest_path,
    mirror_steps,
    read_ingest_state,
)
from libs.run_tree.readme_fields import ReadmeFieldsError, parse_readme_fields
from libs.run_tree.record_file import (
    RecordLockedError,
    RecordMajorMismatchError,
    RecordMissingError,
    RecordNotWritableError,
    RecordUnreadableError,
)
from libs.run_tree.run_path import RunKind

NOW = datetime(2026, 4, 17, 14, 32, 5, tzinfo=UTC)
LATER = datetime(2026, 5, 1, tzinfo=UTC)
EQUIPMENT = EquipmentRecord("CONFOCAL_01", "Confocal", "/data/lab", "//nas/lab")
HEAD = IngestHead("Cortex", "CONFOCAL_01", RunKind.TEST, "CONFOCAL_01/Cortex/TestRuns/TestRun_1")
STEPS = [
    IngestStep(StagingState.STAGING, NOW, "ws-1"),
    IngestStep(StagingState.COMPLETE, NOW, "ws-1", {"files_received": 2, "bytes_received": 9}),
    IngestStep(StagingState.SYNC_QUEUED, LATER, "ws-1"),
]


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("kind", RunKind)
def test_the_file_of_a_group_is_written_once(tmp_path: Path, kind: RunKind) -> None:
    record = GroupRecord("Cortex", "CONFOCAL_01", kind)
    assert write_first_group_record(tmp_path, record, NOW)
    path = group_record_path(tmp_path, kind)
    assert path.name == {RunKind.EXPERIMENTAL: "runs.json", RunKind.TEST: "test_runs.json"}[kind]
    assert path.read_text() == (
        '{"schema_version":"1.0","created_at":"2026-04-17T14:32:05Z","project":"Cortex",'
        f'"equipment":"CONFOCAL_01","run_kind":"{kind.value}"}}'
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_group_record(path) == record
    assert not write_first_group_record(tmp_path, GroupRecord("Other", "X", kind), LATER)
    assert read_group_record(path) == record
    locks = {"test_runs.json.lock"} if kind is RunKind.TEST else set()
    assert set(os.listdir(path.parent)) == {path.name, *locks}


def test_equipment_keeps_when_it_was_first_seen_and_what_others_wrote(tmp_path: Path) -> None:
    path = equipment_record_path(tmp_path)
    note_equipment(tmp_path, EQUIPMENT, NOW)
    assert list(document(path)) == [
        *("schema_version", "id", "label", "configured_local_root", "configured_nas_root"),
        *("first_seen_at", "last_modified_at"),
    ]
    written = path.stat().st_ino
    note_equipment(tmp_path, EQUIPMENT, LATER)
    assert path.stat().st_ino == written, "nothing changed, so nothing is written"
    path.write_text(json.dumps({**document(path), "odd": {"deep": [1, {"é": None}]}}))
    path.chmod(0o640)
    note_equipment(tmp_path, EquipmentRecord("CONFOCAL_01", "", "/data/other", ""), LATER)
    after = document(path)
    assert (after["first_seen_at"], after["last_modified_at"]) == ("2026-04-17T14:32:05Z", "2026-05-01T00:00:00Z")
    assert after["odd"] == {"deep": [1, {"é": None}]}
    assert read_equipment_record(path) == EquipmentRecord("CONFOCAL_01", "Confocal", "/data/other", "//nas/lab")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_ingest_grows_by_the_steps_that_it_lacks(tmp_path: Path) -> None:
    path = ingest_path(tmp_path)
    path.parent.mkdir()
    assert mirror_steps(path, HEAD, STEPS[:1]) is StagingState.STAGING
    assert mirror_steps(path, HEAD, STEPS) is StagingState.SYNC_QUEUED
    before = path.read_bytes()
    assert before.decode() == (
        '{"schema_version":"1.1","project_name":"Cortex","equipment_id":"CONFOCAL_01","run_kind":"test",'
        '"run_path":"CONFOCAL_01/Cortex/TestRuns/TestRun_1","transport":"smb_mount","current_state":"sync_queued",'
        '"history":[{"state":"staging","at":"2026-04-17T14:32:05Z","host":"ws-1"},'
        '{"state":"complete","at":"2026-04-17T14:32:05Z","host":"ws-1","files_received":2,"bytes_received":9},'
        '{"state":"sync_queued","at":"2026-05-01T00:00:00Z","host":"ws-1"}]}'
    )
    assert mirror_steps(path, HEAD, STEPS) is StagingState.SYNC_QUEUED
    assert path.read_bytes() == before
    assert set(os.listdir(path.parent)) == {"ingest.json", "ingest.json.lock"}


def test_what_another_program_wrote_into_ingest_stays(tmp_path: Path) -> None:
    theirs = {
        "schema_version": "1.3",
        "transport": "file_transfer",
        "current_state": "staging",
        "history": [{"state": "staging", "at": "2026-01-01T00:00:00Z", "host": "scope", "x": [1]}],
        "later": {"deep": None},
    }
    path = write(ingest_path(tmp_path), json.dumps(theirs))
    mirror_steps(path, HEAD, STEPS)
    ours = document(path)
    assert ours["history"][0] == theirs["history"][0]  # type: ignore[index]
    assert [entry["state"] for entry in ours["history"]] == ["staging", "complete", "sync_queued"]
    assert (ours["schema_version"], ours["transport"], ours["later"]) == ("1.3", "file_transfer", {"deep": None})
    ahead = write(path, json.dumps({**theirs, "current_state": "cleared"}))
    before = ahead.read_bytes()
    assert mirror_steps(path, HEAD, STEPS) is StagingState.CLEARED
    assert path.read_bytes() == before


READERS: list[tuple[str, Callable[[Path], object]]] = [
    ("runs.json", read_group_record),
    ("equipment.json", read_equipment_record),
    ("ingest.json", read_ingest_state),
]
WRITERS: list[tuple[str, Callable[[Path], object]]] = [
    ("test_runs.json", lambda f: write_first_group_record(f, GroupRecord("P", "E", RunKind.TEST), NOW)),
    ("equipment.json", lambda f: note_equipment(f, EQUIPMENT, NOW)),
    ("ingest.json", lambda f: mirror_steps(ingest_path(f), HEAD, STEPS)),
]
NAMES = [name for name, _ in READERS]


@pytest.mark.parametrize(("name", "read"), READERS, ids=NAMES)
def test_absence_is_told_from_what_cannot_be_used(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    with pytest.raises(RecordMissingError):
        read(tmp_path / name)
    for content in ('{"schema_version":"1.0","run_kind":"x","current_state":7}', "[]", "{", '{"a":1,"a":2}', "\x00"):
        with pytest.raises(RecordUnreadableError, match=name.replace(".", r"\.")) as refusal:
            read(write(tmp_path / name, content))
        assert "\n" not in refusal.value.message
    for content in ('{"schema_version":"2.0"}', "{}", '{"schema_version":1}'):
        with pytest.raises(RecordMajorMismatchError, match="schema_version"):
            read(write(tmp_path / name, content))
    (tmp_path / name).rename(tmp_path / "elsewhere")
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordUnreadableError, match="symlink"):
        read(tmp_path / name)


@pytest.mark.parametrize(("name", "change"), WRITERS, ids=[name for name, _ in WRITERS])
@pytest.mark.parametrize("content", ['{"schema_version":"2.0"}', "{ half", "{}"])
def test_a_file_that_cannot_be_read_is_never_written(
    tmp_path: Path, name: str, change: Callable[[Path], object], content: str
) -> None:
    path = write(tmp_path / ".exlab-wizard" / name, content)
    with pytest.raises(RecordUnreadableError):
        change(tmp_path)
    assert path.read_text() == content


@pytest.mark.parametrize(("name", "change"), WRITERS, ids=[name for name, _ in WRITERS])
def test_the_lock_of_another_process_is_respected(
    tmp_path: Path, name: str, change: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / ".exlab-wizard"
    cache.mkdir()
    for function in (write_first_group_record, note_equipment, mirror_steps):
        monkeypatch.setattr(function, "__defaults__", (0.1,))
    program = "import sys; from filelock import FileLock\nwith FileLock(sys.argv[1]):\n print(flush=True); input()"
    command = [sys.executable, "-c", program, str(cache / f"{name}.lock")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(RecordLockedError, match=r"0\.1 seconds"):
        change(tmp_path)
    holder.communicate(b"\n")
    change(tmp_path)
    with FileLock(cache / f"{name}.lock", timeout=0.1):
        assert (cache / name).exists()


def test_a_folder_without_a_cache_gets_none_for_ingest(tmp_path: Path) -> None:
    with pytest.raises(RecordNotWritableError, match="no such folder"):
        mirror_steps(ingest_path(tmp_path), HEAD, STEPS)
    assert os.listdir(tmp_path) == []


def test_readme_fields_of_another_major_are_not_read() -> None:
    assert parse_readme_fields(b'{"schema_version":"1.7","core_fields":{"label":"x"}}').is_filled("label")
    assert parse_readme_fields(b'{"core_fields":{"label":"x"}}').is_filled("label")
    for version in (b'"2.0"', b"1", b'"10.0"'):
        with pytest.raises(ReadmeFieldsError, match="schema_version"):
            parse_readme_fields(b'{"schema_version":' + version + b"}")


@pytest.mark.parametrize("another_comes", [False, True])
def test_a_run_that_is_moved_away_at_that_moment_is_not_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another_comes: bool
) -> None:
    run, aside = tmp_path / "Run_1", tmp_path / "aside"
    (run / ".exlab-wizard").mkdir(parents=True)
    lock = record_lock.lock_descriptor

    def moved_first(descriptor: int, **options: Any) -> bool:
        run.rename(aside)
        if another_comes:
            (run / ".exlab-wizard").mkdir(parents=True)
        return lock(descriptor, **options)

    monkeypatch.setattr(record_lock, "lock_descriptor", moved_first)
    with pytest.raises(RecordNotWritableError, match="No such file"):
        mirror_steps(ingest_path(run), HEAD, STEPS)
    assert run.exists() == another_comes
    assert [path.name for path in tmp_path.rglob("*.json")] == []


def test_a_file_system_without_locks_is_locked_in_the_other_way_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    (tmp_path / ".exlab-wizard").mkdir()
    path = ingest_path(tmp_path)
    monkeypatch.setattr("fcntl.flock", no_flock)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert mirror_steps(path, HEAD, STEPS) is STEPS[-1].state
        with SoftFileLock(f"{path}.lock"), pytest.raises(RecordLockedError):
            mirror_steps(path, HEAD, STEPS, 0.1)
    assert os.listdir(path.parent) == ["ingest.json"]
