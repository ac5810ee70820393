"""What is read from a creation.json, what is written back, and what is refused (SPEC §2, FORMATS §3)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.run_tree.creation_errors import CreationUnreadableError, SchemaMajorMismatchError
from libs.run_tree.creation_record import Level, SyncStatus, encode_creation, parse_creation
from libs.run_tree.new_run import LimsProjectReference, new_run_record
from libs.run_tree.overrides import OverrideEntry
from libs.run_tree.run_path import RunKind

NOW = datetime(2026, 4, 17, 14, 32, 5, tzinfo=UTC)


def document(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "schema_version": "1.8",
        "created_at": "2026-04-17T14:32:05Z",
        "created_by": "ada",
        "level": "run",
        "lims_project": {"uid": "u", "short_id": "PROJ-0042", "name_at_creation": "Cortex"},
        "template": {"name": "t", "version": "1.0", "source_path": "/templates/t", "run_scope": "both"},
        "variables": {"é": 1},
        "paths": {"local": "/data", "nas": "//nas"},
    }
    return {key: value for key, value in (whole | changes).items() if value is not ...}


def content(**changes: Any) -> bytes:
    return json.dumps(document(**changes), ensure_ascii=False).encode()


def test_absent_fields_have_their_defaults() -> None:
    record = parse_creation(content())
    assert record.level is Level.RUN
    assert record.run_kind is RunKind.EXPERIMENTAL
    assert record.sync_status is SyncStatus.PENDING
    assert record.overrides == ()
    assert record.files_affected == ()
    assert record.template_source_path == "/templates/t"


@pytest.mark.parametrize("minor", range(13))
def test_every_minor_of_the_major_is_read(minor: int) -> None:
    assert parse_creation(content(schema_version=f"1.{minor}")).version == (1, minor)


@pytest.mark.parametrize("found", ["2.0", "0.9", "", "1", "1.x", "11.0", "v1.8", "1.8.0", " 1.8", 1.8, 1, [], True])
def test_another_major_is_refused_whole(found: object) -> None:
    with pytest.raises(SchemaMajorMismatchError) as refusal:
        parse_creation(content(schema_version=found, level="unknown"))
    assert refusal.value.code == "schema_major_mismatch"
    assert refusal.value.field == "schema_version"
    assert refusal.value.expected_major == 1
    assert refusal.value.found == repr(found)


@pytest.mark.parametrize("missing", [..., None])
def test_no_version_is_refused(missing: object) -> None:
    with pytest.raises(SchemaMajorMismatchError) as refusal:
        parse_creation(content(schema_version=missing))
    assert refusal.value.found is None


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"sync_status": "done"}, "sync_status"),
        ({"sync_status": None}, "sync_status"),
        ({"sync_status": ["synced"]}, "sync_status"),
        ({"run_kind": "calibration"}, "run_kind"),
        ({"level": "equipment"}, "level"),
        ({"level": ...}, "no level"),
        ({"validation_overrides": {}}, "validation_overrides"),
        ({"validation_overrides": ["x"]}, "entry 1"),
    ],
)
def test_what_cannot_be_understood_is_named(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(CreationUnreadableError, match=word):
        parse_creation(content(**changes))


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "no readable JSON"),
        (b"{", "no readable JSON"),
        (b"[]", "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"schema_version":"1.8","schema_version":"1.8"}', "twice"),
        (b'{"a":{"b":1,"b":2}}', "twice"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":1e999}', "too large"),
        (b'{"a":"\xff"}', "UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"[" * 100_000, "deeply"),
    ],
)
def test_half_valid_files_give_one_sentence(raw: bytes, word: str) -> None:
    with pytest.raises(CreationUnreadableError, match=word):
        parse_creation(raw)


def test_a_mutation_writes_version_1_8_and_known_keys_in_order() -> None:
    record = parse_creation(content(schema_version="1.6", zebra=1, sync_status="failed", run_kind="test"))
    written = json.loads(encode_creation(record.with_sync_status(SyncStatus.PENDING)))
    assert written["schema_version"] == "1.8"
    assert written["sync_status"] == "pending"
    assert list(written) == [
        "schema_version", "created_at", "created_by", "level", "run_kind", "lims_project", "template", "variables",
        "paths", "sync_status", "zebra",
    ]  # fmt: skip
    assert "original_schema_version" not in written


def test_a_newer_minor_keeps_its_version() -> None:
    record = parse_creation(content(schema_version="1.12"))
    assert json.loads(encode_creation(record.with_sync_status(SyncStatus.SYNCED)))["schema_version"] == "1.12"


def test_a_file_from_before_1_5_stays_exempt_from_the_finding_about_lims_project() -> None:
    record = parse_creation(content(schema_version="1.4", lims_project=..., lims_status="Active"))
    assert not record.lims_project_expected
    once = parse_creation(encode_creation(record.with_sync_status(SyncStatus.FAILED)))
    twice = parse_creation(encode_creation(once.with_sync_status(SyncStatus.SYNCED)))
    assert twice.raw["original_schema_version"] == "1.4"
    assert twice.raw["lims_status"] == "Active"
    assert twice.schema_version == "1.8"
    assert not twice.lims_project_expected
    assert parse_creation(content(schema_version="1.5", lims_project=...)).lims_project_expected


def test_one_compact_line_with_non_ascii_as_it_is() -> None:
    written = encode_creation(parse_creation(content(created_by="Zoë\u2028", odd="\\ud800")))
    assert b"\n" not in written
    assert b", " not in written and b'": ' not in written
    assert "Zoë\u2028".encode() in written
    assert b"\\u00" not in written


def test_a_lone_surrogate_stays_the_escape_that_it_was() -> None:
    raw = content().replace(b'"ada"', b'"a\\ud800b"')
    assert b'"a\\ud800b"' in encode_creation(parse_creation(raw))


def test_the_same_status_changes_nothing() -> None:
    record = parse_creation(content())
    assert record.with_sync_status(SyncStatus.PENDING) is record


def test_overrides_are_appended_and_keep_every_field() -> None:
    foreign = {"id": "f", "problem_class": "c", "operator": "o", "reason": "r", "colour": {"deep": [1, None]}}
    record = parse_creation(content(validation_overrides=[foreign]))
    added = OverrideEntry.tombstone(tombstone_id="t", revokes="f", operator="ada", recorded_at=NOW, reason="r")
    grown = record.with_appended_overrides([added])
    assert grown.raw["validation_overrides"] == [foreign, dict(added.raw)]
    assert [entry.id for entry in grown.overrides] == ["f", "t"]
    assert record.with_appended_overrides([]) is record


def test_entries_without_an_id_get_one_and_the_others_keep_theirs() -> None:
    record = parse_creation(
        content(validation_overrides=[{"problem_class": "a"}, {"id": "kept"}, {"id": "", "x": 1}, {"id": None}])
    )
    ids = iter(["new-1", "new-2", "new-3"])
    given_ids = record.with_override_ids(lambda: next(ids))
    assert [entry.id for entry in given_ids.overrides] == ["new-1", "kept", "new-2", "new-3"]
    assert given_ids.overrides[2].raw == {"id": "new-2", "x": 1}
    assert given_ids.with_override_ids(lambda: "never") is given_ids


def test_files_that_plugins_rendered() -> None:
    plugins = [{"plugin": "p", "files_affected": ["a.txt", 7, "b/c.csv"]}, {"plugin": "q"}, "odd"]
    assert parse_creation(content(plugins_applied=plugins)).files_affected == ("a.txt", "b/c.csv")


def test_a_new_run_has_the_keys_in_order() -> None:
    record = new_run_record(
        created_at=NOW, created_by="ada", kind=RunKind.TEST, local_path="/data/x", nas_path="//nas/x",
        lims_project=LimsProjectReference("u", "PROJ-1", "Cortex", "cache", NOW),
    )  # fmt: skip
    written = json.loads(encode_creation(record))
    assert list(written) == [
        "schema_version", "created_at", "created_by", "level", "run_kind", "lims_project", "template", "variables",
        "paths", "plugins_applied", "sync_status", "validation_overrides",
    ]  # fmt: skip
    assert written["lims_project"]["cache_freshness_at_use"] == "2026-04-17T14:32:05Z"
    assert record.run_kind is RunKind.TEST
    assert parse_creation(encode_creation(record)) == record
    without = new_run_record(
        created_at=NOW, created_by="ada", kind=RunKind.EXPERIMENTAL, local_path="/data/x", nas_path=""
    )
    assert "lims_project" not in without.raw


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(min_size=1).map(lambda key: "x_" + key), _json, max_size=4), _json)
def test_nothing_unknown_is_lost_at_any_depth(unknown: dict[str, Any], variables: Any) -> None:
    before = document(variables=variables, **unknown)
    record = parse_creation(json.dumps(before).encode()).with_sync_status(SyncStatus.SYNCED)
    assert json.loads(encode_creation(record)) == {**before, "sync_status": "synced"}
