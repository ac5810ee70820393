"""A creation.json of every version, as FORMATS §3 has it, with defaults left out and written: all are read, and a
change leaves every other byte as it was.

The files were made from the published format, not by Labferry's writer.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.run_tree.creation_record import CreationRecord, Level, SyncStatus, encode_creation, parse_creation
from libs.run_tree.overrides import OverrideEntry
from libs.run_tree.run_path import RunKind

FILES = sorted(Path(__file__).with_name("creation_files").glob("*.json"))
MINORS = (*range(10), 12)


def minor_of(path: Path) -> int:
    return int(path.name.split("-")[0].removeprefix("1."))


def written(record: CreationRecord) -> str:
    return encode_creation(record).decode()


def with_version(text: str, minor: int) -> str:
    """As a writer of 1.8 leaves the version, and what it notes of a file from before `lims_project`."""
    if minor < 8:
        text = text.replace(f'"schema_version":"1.{minor}"', '"schema_version":"1.8"', 1)
    if minor < 5:
        text = f'{text[:-1]},"original_schema_version":"1.{minor}"}}'
    return text


def in_order(text: str, minor: int) -> str:
    """1.4's retracted field is no known one, so it stands last."""
    if minor != 4:
        return text
    field = '"lims_status":"Active",'
    end = text.rindex(',"original_schema_version"')
    return text[:end].replace(field, "") + ',"lims_status":"Active"' + text[end:]


def test_there_is_a_file_of_every_version() -> None:
    assert sorted({minor_of(path) for path in FILES}) == list(MINORS)
    assert len(FILES) == 2 * len(MINORS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_it_is_read_with_its_defaults(path: Path) -> None:
    minor, present = minor_of(path), path.stem.endswith("present")
    record = parse_creation(path.read_bytes())
    assert record.version == (1, minor)
    assert (record.level, record.run_kind, record.sync_status) == (
        Level.RUN,
        RunKind.EXPERIMENTAL,
        SyncStatus.PENDING,
    )
    entries = 0 if not present or minor < 2 else 1 if minor < 6 else 2
    assert len(record.overrides) == entries
    assert record.files_affected == (("README.md", "notes/plan.txt") if present and minor else ())
    assert record.template_source_path == "/srv/templates/confocal"
    assert record.lims_project_expected is (minor >= 5)
    assert (record.lims_short_id, record.lims_project_name) == (
        ("PROJ-0042", "Größe & Süd") if minor >= 5 else ("", "")
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_new_status_changes_nothing_else(path: Path) -> None:
    minor, text = minor_of(path), path.read_text(encoding="utf-8")
    record = parse_creation(path.read_bytes())
    if path.stem.endswith("present"):
        expected = text.replace('"sync_status":"pending"', '"sync_status":"synced"')
    elif minor == 12:
        expected = text.replace(',"added_in_1_12"', ',"sync_status":"synced","added_in_1_12"')
    else:
        expected = f'{text[:-1]},"sync_status":"synced"}}'
    changed = record.with_sync_status(SyncStatus.SYNCED)
    assert written(changed) == in_order(with_version(expected, minor), minor)
    again = parse_creation(encode_creation(changed)).with_sync_status(SyncStatus.PENDING)
    assert '"sync_status":"pending"' in written(again), "a field set back to its default is really written"
    assert parse_creation(encode_creation(again)).lims_project_expected is (minor >= 5)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_new_override_changes_nothing_else(path: Path) -> None:
    minor, text = minor_of(path), path.read_text(encoding="utf-8")
    record = parse_creation(path.read_bytes())
    entry = '{"id":"n","problem_class":"leftover_jinja_marker"}'
    if '"validation_overrides":[' in text:
        end = text.rindex("]") if minor != 12 else text.index('],"added_in_1_12"')
        expected = f"{text[:end]},{entry}{text[end:]}"
    elif minor == 12:
        expected = text.replace(',"added_in_1_12"', f',"validation_overrides":[{entry}],"added_in_1_12"')
    else:
        expected = f'{text[:-1]},"validation_overrides":[{entry}]}}'
    added = OverrideEntry({"id": "n", "problem_class": "leftover_jinja_marker"})
    changed = record.with_appended_overrides([added])
    assert written(changed) == in_order(with_version(expected, minor), minor)
