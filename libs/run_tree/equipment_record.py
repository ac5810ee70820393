"""`equipment.json`: what programs know of an instrument, in its folder's cache (FORMATS §5)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from libs.run_tree.beneath import make_folder_beneath
from libs.run_tree.find_runs import CACHE_FOLDER_NAME
from libs.run_tree.json_value import JsonValue
from libs.run_tree.record_file import Document, change_record, read_record
from libs.run_tree.record_file import text_field as text
from libs.run_tree.record_lock import DEFAULT_LOCK_TIMEOUT
from libs.run_tree.timestamp import format_time

_ORDER = (
    *("schema_version", "id", "label", "configured_local_root", "configured_nas_root"),
    *("first_seen_at", "last_modified_at"),
)
_WRITTEN_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class EquipmentRecord:
    """The instrument as it is configured; an empty text means that nothing is said."""

    equipment_id: str
    label: str
    local_root: str
    nas_root: str


def equipment_record_path(equipment_folder: Path) -> Path:
    """Where the file of an equipment's folder lies."""
    return equipment_folder / CACHE_FOLDER_NAME / "equipment.json"


def read_equipment_record(path: Path) -> EquipmentRecord:
    """RecordMissingError, RecordUnreadableError."""
    document = read_record(path)
    return EquipmentRecord(
        text(document, "id", path),
        text(document, "label", path, required=False),
        text(document, "configured_local_root", path, required=False),
        text(document, "configured_nas_root", path, required=False),
    )


def note_equipment(
    equipment_folder: Path, record: EquipmentRecord, now: datetime, lock_timeout: float = DEFAULT_LOCK_TIMEOUT
) -> None:
    """Makes the file say what the record does. `first_seen_at` is kept, and so is every field that isn't known here;
    nothing is written when it says so already.

    RecordUnreadableError, RecordLockedError, RecordNotWritableError.
    """
    path = equipment_record_path(equipment_folder)
    make_folder_beneath(path.parent)
    change_record(path, lambda present: _noted(present, record, now), _ORDER, lock_timeout)


def _noted(present: Document | None, record: EquipmentRecord, now: datetime) -> Document | None:
    said: dict[str, JsonValue] = {
        "id": record.equipment_id,
        "label": record.label,
        "configured_local_root": record.local_root,
        "configured_nas_root": record.nas_root,
    }
    if present is not None:
        # What the configuration leaves open another program may know.
        said = {key: value for key, value in said.items() if value}
    if present is not None and all(present.get(key, "") == value for key, value in said.items()):
        return None
    moment = format_time(now)
    known = present or {"schema_version": _WRITTEN_VERSION, "first_seen_at": moment}
    return {**known, **said, "last_modified_at": moment}
