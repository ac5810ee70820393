"""`ingest.json`: how far a staged run has come, for programs that look at its folder (SPEC §8, FORMATS §6).

The event log is the truth; the file mirrors it. Its history only grows, by single steps forward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from libs.run_tree.find_runs import CACHE_FOLDER_NAME
from libs.run_tree.json_value import JsonValue
from libs.run_tree.record_file import Document, RecordUnreadableError, change_record, read_record
from libs.run_tree.record_lock import DEFAULT_LOCK_TIMEOUT
from libs.run_tree.run_path import RunKind
from libs.run_tree.timestamp import format_time

_ORDER = (
    *("schema_version", "project_name", "equipment_id", "run_kind", "run_path", "transport"),
    *("current_state", "history"),
)
_WRITTEN_VERSION = "1.1"
_TRANSPORT = "smb_mount"


class StagingState(StrEnum):
    """In the order in which a staged run goes through them."""

    STAGING = "staging"
    COMPLETE = "complete"
    SYNC_QUEUED = "sync_queued"
    SYNC_VERIFIED = "sync_verified"
    CLEARED = "cleared"

    @property
    def step(self) -> int:
        """0 for the first state."""
        return list(StagingState).index(self)


@dataclass(frozen=True, slots=True)
class IngestStep:
    """A state that was reached: when, on which host, and what the file says besides of that state."""

    state: StagingState
    at: datetime
    host: str
    details: Mapping[str, JsonValue] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class IngestHead:
    """What the file says of the run itself. `run_path` is relative to the staging root."""

    project_name: str
    equipment_id: str
    run_kind: RunKind
    run_path: str


def ingest_path(run_folder: Path) -> Path:
    """Where the `ingest.json` of a run's folder lies."""
    return run_folder / CACHE_FOLDER_NAME / "ingest.json"


def read_ingest_state(path: Path) -> StagingState:
    """The state that the file names. RecordMissingError, RecordUnreadableError."""
    return _state(read_record(path), path)


def mirror_steps(
    path: Path, head: IngestHead, steps: Sequence[IngestStep], lock_timeout: float = DEFAULT_LOCK_TIMEOUT
) -> StagingState:
    """Appends those of the log's steps that lie ahead of the file's state, and returns the state that it then names.

    A file that is further than the log is left alone, and so is everything in it that isn't known here.
    RecordUnreadableError, RecordLockedError, RecordNotWritableError.
    """
    reached = StagingState.STAGING

    def mirrored(present: Document | None) -> Document | None:
        nonlocal reached
        document = _with_steps(present, head, steps, path)
        if document is not None:
            reached = _state(document, path)
        elif present is not None:
            reached = _state(present, path)
        return document

    change_record(path, mirrored, _ORDER, lock_timeout)
    return reached


def _with_steps(present: Document | None, head: IngestHead, steps: Sequence[IngestStep], path: Path) -> Document | None:
    behind = -1 if present is None else _state(present, path).step
    ahead = [step for step in steps if step.state.step > behind]
    if not ahead:
        return None
    document = dict(present) if present is not None else _first(head)
    history = document.get("history", [])
    if not isinstance(history, list):
        raise RecordUnreadableError(f"{path}: history is no list.", path)
    document["history"] = [*history, *(_entry(step) for step in ahead)]
    document["current_state"] = ahead[-1].state.value
    return document


def _first(head: IngestHead) -> dict[str, JsonValue]:
    return {
        "schema_version": _WRITTEN_VERSION,
        "project_name": head.project_name,
        "equipment_id": head.equipment_id,
        "run_kind": head.run_kind.value,
        "run_path": head.run_path,
        "transport": _TRANSPORT,
    }


def _entry(step: IngestStep) -> dict[str, JsonValue]:
    return {"state": step.state.value, "at": format_time(step.at), "host": step.host, **step.details}


def _state(document: Document, path: Path) -> StagingState:
    found = document.get("current_state")
    for state in StagingState:
        if found == state.value:
            return state
    raise RecordUnreadableError(f"{path}: current_state is {str(found)[:80]!r}.", path)
