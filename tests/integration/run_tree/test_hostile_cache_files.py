"""Whatever the cache files hold: they are read or refused by name, and changed whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.run_tree.completeness_manifest import CompletenessManifestError, not_yet_there, parse_completeness_manifest
from libs.run_tree.creation_errors import CreationError
from libs.run_tree.creation_json import mutate_creation, read_creation
from libs.run_tree.creation_record import SyncStatus
from libs.run_tree.equipment_record import EquipmentRecord, note_equipment, read_equipment_record
from libs.run_tree.group_record import GroupRecord, read_group_record, write_first_group_record
from libs.run_tree.ingest_record import IngestHead, IngestStep, StagingState, mirror_steps, read_ingest_state
from libs.run_tree.readme_fields import ReadmeFieldsError, parse_readme_fields
from libs.run_tree.record_file import RecordError
from libs.run_tree.run_path import RunKind

NOW = datetime(2026, 4, 17, 14, 32, 5, tzinfo=UTC)
HEAD = IngestHead("Cortex", "CONFOCAL_01", RunKind.TEST, "CONFOCAL_01/Cortex/TestRuns/TestRun_1")
STEPS = [IngestStep(state, NOW, "ws-1") for state in StagingState]
EQUIPMENT = EquipmentRecord("CONFOCAL_01", "Confocal", "/data/lab", "//nas/lab")
KEYS = [
    *("schema_version", "id", "label", "configured_local_root", "first_seen_at", "last_modified_at", "created_at"),
    *("project", "equipment", "run_kind", "current_state", "history", "files", "path", "size", "level", "created_by"),
    *("core_fields", "template_fields", "config_fields", "template", "variables", "paths", "sync_status"),
    *("validation_overrides", "lims_project", "plugins_applied"),
]
TEXTS = [
    *("1.0", "1.1", "1.8", "2.0", "1.99999999999"),
    *map(str, StagingState),
    *map(str, RunKind),
    "run",
    "\ud800",
    "",
]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(TEXTS) | st.text(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
# Right as each of the files but for a field or two, so that what lies behind the others is reached.
RIGHT: dict[str, Any] = {
    "schema_version": "1.1",
    "id": "CONFOCAL_01",
    "label": "x",
    "created_at": "2026-04-17T14:32:05Z",
    "created_by": "ada",
    "project": "p",
    "equipment": "CONFOCAL_01",
    "run_kind": "test",
    "current_state": "staging",
    "history": [],
    "files": [{"path": "a.tif", "size": 1}],
    "level": "run",
    "template": {"name": "t", "version": "1.0", "source_path": "/t", "run_scope": "both"},
    "variables": {},
    "paths": {"local": "", "nas": ""},
    "validation_overrides": [{"operator": "ada", "reason": "why"}],
    "core_fields": {"label": "x"},
}
documents = st.dictionaries(st.sampled_from(KEYS), values, max_size=2).map(lambda fields: RIGHT | fields)
contents = (
    documents.map(lambda document: json.dumps(document).encode())
    | st.binary(max_size=40)
    | values.map(lambda value: json.dumps(value).encode())
    | st.tuples(documents, st.integers(1, 40)).map(lambda cut: json.dumps(cut[0]).encode()[: -cut[1]])
    | st.sampled_from(
        [
            b"[" * 100_000,
            b'{"schema_version":"1.0","history":' + b"[" * 900 + b"]" * 900 + b',"current_state":"staging"}',
            b'{"schema_version":"1.0","id":"a","id":"b"}',
            b'{"schema_version":"1.0","history":' + b"9" * 5000 + b"}",
            b'{"schema_version":"1.0","x":1e999}',
            b'{"schema_version":"1.0","x":NaN}',
            b'\xef\xbb\xbf{"schema_version":"1.0"}',
            b'{"schema_version":"1.0"}\x00',
        ]
    )
)

WRONG: list[Any] = [None, True, 7, 1.5, "x", [], [1], [[]], [{}], {}, {"a": 1}, {"path": []}]
REFUSALS = (RecordError, CreationError)
READERS: dict[str, Callable[[Path], object]] = {
    "equipment.json": read_equipment_record,
    "runs.json": read_group_record,
    "test_runs.json": read_group_record,
    "ingest.json": read_ingest_state,
    "creation.json": read_creation,
}
CHANGES: dict[str, Callable[[Path], object]] = {
    "equipment.json": lambda folder: note_equipment(folder, EQUIPMENT, NOW),
    "runs.json": lambda folder: write_first_group_record(folder, GroupRecord("p", "E", RunKind.EXPERIMENTAL), NOW),
    "test_runs.json": lambda folder: write_first_group_record(folder, GroupRecord("p", "E", RunKind.TEST), NOW),
    "ingest.json": lambda folder: mirror_steps(folder / ".exlab-wizard" / "ingest.json", HEAD, STEPS),
    "creation.json": lambda folder: mutate_creation(
        folder / ".exlab-wizard" / "creation.json",
        lambda r: r.with_override_ids(lambda: "new").with_sync_status(SyncStatus.SYNCED),
    ),
}
hostile = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", READERS)
@given(content=contents)
@hostile
def test_any_content(tmp_path: Path, name: str, content: bytes) -> None:
    read_and_change(tmp_path, name, content)


@pytest.mark.parametrize("name", READERS)
def test_every_field_of_another_kind(tmp_path: Path, name: str) -> None:
    for key in RIGHT:
        for wrong in WRONG:
            read_and_change(tmp_path, name, json.dumps(RIGHT | {key: wrong}).encode())


def read_and_change(tmp_path: Path, name: str, content: bytes) -> None:
    cache = tmp_path / ".exlab-wizard"
    cache.mkdir(exist_ok=True)
    (cache / name).write_bytes(content)
    readable = settles(lambda: READERS[name](cache / name))
    assert (cache / name).read_bytes() == content
    if not settles(lambda: CHANGES[name](tmp_path)):
        assert (cache / name).read_bytes() == content
    elif (after := (cache / name).read_bytes()) != content:
        before, now = json.loads(content), json.loads(after)
        assert settles(lambda: READERS[name](cache / name)) or not readable
        assert {key: now[key] for key in before if key not in CHANGED} == {
            key: value for key, value in before.items() if key not in CHANGED
        }
    assert set(os.listdir(cache)) <= {name, f"{name}.lock"}


CHANGED = {
    *("id", "label", "configured_local_root", "configured_nas_root", "last_modified_at", "current_state", "history"),
    *("sync_status", "validation_overrides", "schema_version", "original_schema_version"),
}


def settles(what: Callable[[], Any]) -> bool:
    """Whether it was done; refused by name otherwise."""
    try:
        what()
    except REFUSALS as refusal:
        assert str(refusal)
        return False
    return True


@given(content=contents)
@hostile
def test_readme_fields(content: bytes) -> None:
    try:
        fields = parse_readme_fields(content)
    except ReadmeFieldsError:
        return
    for key in KEYS:
        fields.is_filled(key)


@given(content=contents)
@hostile
def test_a_completeness_manifest(content: bytes) -> None:
    try:
        expected = parse_completeness_manifest(content)
    except CompletenessManifestError:
        return
    assert all(not path.startswith("/") and ".." not in path.split("/") for path in not_yet_there(expected, {}))
