"""The content of a `creation.json`, checked and typed, with everything that we don't understand kept (SPEC §2,
FORMATS §3).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

from libs.run_tree.creation_errors import CreationUnreadableError, SchemaMajorMismatchError
from libs.run_tree.json_value import JsonValue, NotJsonError, decode_json, encode_json
from libs.run_tree.lims_project import NamedLimsProject
from libs.run_tree.overrides import OverrideEntry
from libs.run_tree.run_path import RunKind

WRITTEN_VERSION = (1, 8)
_LIMS_PROJECT_SINCE = (1, 5)
_KEY_ORDER = (
    "schema_version",
    "created_at",
    "created_by",
    "level",
    "run_kind",
    "lims_project",
    "template",
    "variables",
    "paths",
    "plugins_applied",
    "orchestrator",
    "sync_status",
    "validation_overrides",
)
_POSITION = {key: position for position, key in enumerate(_KEY_ORDER)}
_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})", re.ASCII)


class Level(StrEnum):
    """What the folder is."""

    PROJECT = "project"
    RUN = "run"


class SyncStatus(StrEnum):
    """All the values that may be written: the wizard refuses a file with any other."""

    PENDING = "pending"
    SYNCED = "synced"
    CLEANED = "cleaned"
    FAILED = "failed"
    BLOCKED_BY_VALIDATION = "blocked_by_validation"


_Choice = TypeVar("_Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class CreationRecord:
    """One `creation.json`. `raw` is the whole document as read; the other fields are its typed parts, defaults filled
    in.
    """

    raw: Mapping[str, JsonValue] = field(hash=False)
    version: tuple[int, int]
    level: Level
    run_kind: RunKind
    sync_status: SyncStatus
    overrides: tuple[OverrideEntry, ...] = field(hash=False)

    @property
    def schema_version(self) -> str:
        """As the file says, such as "1.8"."""
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def lims_project_expected(self) -> bool:
        """False for a file that came from below 1.5: it legally has no `lims_project`."""
        return self.version >= _LIMS_PROJECT_SINCE and "original_schema_version" not in self.raw

    @property
    def template_source_path(self) -> str | None:
        """Folder of the template on the machine that made the run; None when the file names none."""
        template = self.raw.get("template")
        source_path = template.get("source_path") if isinstance(template, dict) else None
        return source_path if isinstance(source_path, str) and source_path else None

    @property
    def lims_project(self) -> NamedLimsProject | None:
        """None when the file names none."""
        return NamedLimsProject.from_document(self.raw.get("lims_project"))

    @property
    def lims_short_id(self) -> str:
        """Short id of the LIMS project; empty when the file names none."""
        project = self.lims_project
        return "" if project is None else project.short_id

    @property
    def lims_project_name(self) -> str:
        """The LIMS project's name when the run was made; empty when the file names none."""
        project = self.lims_project
        return "" if project is None else project.name

    @property
    def files_affected(self) -> tuple[str, ...]:
        """Files that plugins rendered, relative to the run, in file order."""
        plugins = self.raw.get("plugins_applied")
        names: list[str] = []
        for plugin in plugins if isinstance(plugins, list) else ():
            affected = plugin.get("files_affected") if isinstance(plugin, dict) else None
            names.extend(name for name in (affected if isinstance(affected, list) else ()) if isinstance(name, str))
        return tuple(names)

    def with_sync_status(self, status: SyncStatus) -> CreationRecord:
        """The same record with this status, written even where it is the default."""
        if status is self.sync_status:
            return self
        return replace(self, raw={**self.raw, "sync_status": status.value}, sync_status=status)

    def with_appended_overrides(self, entries: Sequence[OverrideEntry]) -> CreationRecord:
        """The same record with these entries after its own."""
        return self._with_overrides((*self.overrides, *entries)) if entries else self

    def with_override_ids(self, new_id: Callable[[], str]) -> CreationRecord:
        """The same record with an id for every entry that lacks one."""
        if all(entry.id is not None for entry in self.overrides):
            return self
        return self._with_overrides([e if e.id is not None else e.with_id(new_id()) for e in self.overrides])

    def _with_overrides(self, entries: Sequence[OverrideEntry]) -> CreationRecord:
        return creation_from_document({**self.raw, "validation_overrides": [dict(entry.raw) for entry in entries]})


def parse_creation(content: bytes) -> CreationRecord:
    """The record in these bytes. CreationUnreadableError, SchemaMajorMismatchError; never a partial parse."""
    try:
        document = decode_json(content)
    except NotJsonError as error:
        raise CreationUnreadableError(f"creation.json is no readable JSON: {error}.") from error
    if not isinstance(document, dict):
        raise CreationUnreadableError("creation.json holds no JSON object.")
    return creation_from_document(document)


def creation_from_document(document: Mapping[str, JsonValue]) -> CreationRecord:
    """The record of a decoded document; errors as `parse_creation`."""
    # Before anything else is looked at: of another major not even the field names are known to mean the same.
    version = _version(document)
    return CreationRecord(
        raw=document,
        version=version,
        level=_choice(document, "level", Level, None),
        run_kind=_choice(document, "run_kind", RunKind, RunKind.EXPERIMENTAL),
        sync_status=_choice(document, "sync_status", SyncStatus, SyncStatus.PENDING),
        overrides=_overrides(document),
    )


def encode_creation(record: CreationRecord) -> bytes:
    """The file's bytes as Labferry writes them."""
    return encode_json(document_to_write(record))


def document_to_write(record: CreationRecord) -> Mapping[str, JsonValue]:
    """What Labferry writes: version 1.8 or the record's own if newer, keys in the order of FORMATS §3."""
    document = dict(record.raw)
    if record.version < WRITTEN_VERSION:
        document["schema_version"] = f"{WRITTEN_VERSION[0]}.{WRITTEN_VERSION[1]}"
        if record.version < _LIMS_PROJECT_SINCE and "lims_project" not in document:
            document.setdefault("original_schema_version", record.schema_version)
    known_first = sorted(document, key=lambda key: _POSITION.get(key, len(_POSITION)))
    return {key: document[key] for key in known_first}


def _version(document: Mapping[str, JsonValue]) -> tuple[int, int]:
    found = document.get("schema_version")
    if found is None:
        raise SchemaMajorMismatchError(None)
    shape = _VERSION.fullmatch(found) if isinstance(found, str) else None
    if shape is None or int(shape[1]) != 1:
        raise SchemaMajorMismatchError(repr(found)[:80])
    return int(shape[1]), int(shape[2])


def _choice(document: Mapping[str, JsonValue], key: str, choices: type[_Choice], default: _Choice | None) -> _Choice:
    if key not in document:
        if default is None:
            raise CreationUnreadableError(f"creation.json has no {key}.")
        return default
    value = document[key]
    if isinstance(value, str):
        with suppress(ValueError):
            return choices(value)
    allowed = ", ".join(choices)
    raise CreationUnreadableError(f"creation.json's {key} is {str(value)[:80]!r}; known values are {allowed}.")


def _overrides(document: Mapping[str, JsonValue]) -> tuple[OverrideEntry, ...]:
    entries = document.get("validation_overrides", [])
    if not isinstance(entries, list):
        raise CreationUnreadableError("creation.json's validation_overrides is no list.")
    overrides: list[OverrideEntry] = []
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise CreationUnreadableError(f"creation.json's validation_overrides entry {number} is no object.")
        overrides.append(OverrideEntry(entry))
    return tuple(overrides)
