"""The first `creation.json` of a run that Labferry adopts: a folder that no wizard made (FORMATS §3)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from libs.run_tree.creation_record import (
    WRITTEN_VERSION,
    CreationRecord,
    Level,
    SyncStatus,
    creation_from_document,
)
from libs.run_tree.json_value import JsonValue
from libs.run_tree.run_path import RunKind
from libs.run_tree.timestamp import format_time


@dataclass(frozen=True, slots=True)
class LimsProjectReference:
    """The LIMS project that a run belongs to, as known at adoption; uid and short_id may be "".

    `source` is live, cache or offline_catalogue; `cache_freshness_at_use` is None for a live answer.
    """

    uid: str
    short_id: str
    name_at_creation: str
    source: str
    cache_freshness_at_use: datetime | None = None


def new_run_record(
    *,
    created_at: datetime,
    created_by: str,
    kind: RunKind,
    local_path: str,
    nas_path: str,
    lims_project: LimsProjectReference | None = None,
) -> CreationRecord:
    """A pending run without template or plugins. `nas_path` is for display only."""
    document: dict[str, JsonValue] = {
        "schema_version": f"{WRITTEN_VERSION[0]}.{WRITTEN_VERSION[1]}",
        "created_at": format_time(created_at),
        "created_by": created_by,
        "level": Level.RUN.value,
        "run_kind": kind.value,
    }
    if lims_project is not None:
        freshness = lims_project.cache_freshness_at_use
        document["lims_project"] = {
            "uid": lims_project.uid,
            "short_id": lims_project.short_id,
            "name_at_creation": lims_project.name_at_creation,
            "source": lims_project.source,
            "cache_freshness_at_use": None if freshness is None else format_time(freshness),
        }
    document |= {
        # No template made this folder; the reader's required fields are filled with what that means.
        "template": {"name": "adopted", "version": "1.0", "source_path": "", "run_scope": "both"},
        "variables": {},
        "paths": {"local": local_path, "nas": nas_path},
        "plugins_applied": [],
        "sync_status": SyncStatus.PENDING.value,
        "validation_overrides": [],
    }
    return creation_from_document(document)
