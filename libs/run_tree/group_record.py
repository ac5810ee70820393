"""`runs.json` and `test_runs.json`: what a project's folder of runs is for. Written once (FORMATS §5)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from libs.run_tree.beneath import make_folder_beneath
from libs.run_tree.find_runs import CACHE_FOLDER_NAME
from libs.run_tree.record_file import Document, RecordUnreadableError, change_record, create_record, read_record
from libs.run_tree.record_file import text_field as text
from libs.run_tree.record_lock import DEFAULT_LOCK_TIMEOUT
from libs.run_tree.run_path import RunKind
from libs.run_tree.timestamp import format_time

_ORDER = ("schema_version", "created_at", "project", "equipment", "run_kind")
_WRITTEN_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """The project and equipment that the folder belongs to, by name and id, and the kind of its runs."""

    project: str
    equipment: str
    run_kind: RunKind


def group_record_path(group_folder: Path, kind: RunKind) -> Path:
    """Where the file of a `Runs` or `TestRuns` folder lies."""
    name = "runs.json" if kind is RunKind.EXPERIMENTAL else "test_runs.json"
    return group_folder / CACHE_FOLDER_NAME / name


def read_group_record(path: Path) -> GroupRecord:
    """RecordMissingError, RecordUnreadableError."""
    document = read_record(path)
    said = document.get("run_kind", RunKind.EXPERIMENTAL.value)
    kind = next((known for known in RunKind if said == known.value), None)
    if kind is None:
        raise RecordUnreadableError(f"{path}: run_kind is {str(said)[:80]!r}.", path)
    return GroupRecord(text(document, "project", path), text(document, "equipment", path), kind)


def write_first_group_record(
    group_folder: Path, record: GroupRecord, created_at: datetime, lock_timeout: float = DEFAULT_LOCK_TIMEOUT
) -> bool:
    """Writes the file of a folder that has none; False when it has one, whatever that holds.

    RecordNotWritableError, RecordLockedError, RecordUnreadableError.
    """
    path = group_record_path(group_folder, record.run_kind)
    document: Document = {
        "schema_version": _WRITTEN_VERSION,
        "created_at": format_time(created_at),
        "project": record.project,
        "equipment": record.equipment,
        "run_kind": record.run_kind.value,
    }
    make_folder_beneath(path.parent)
    if record.run_kind is RunKind.EXPERIMENTAL:
        # The wizard takes no lock for this one.
        return create_record(path, document, _ORDER)
    written = False

    def first(present: Document | None) -> Document | None:
        nonlocal written
        written = present is None
        return document if written else None

    change_record(path, first, _ORDER, lock_timeout)
    return written
