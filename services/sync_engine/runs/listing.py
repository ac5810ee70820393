"""ListRuns: the runs on disk and those that the log knows, filtered, in pages that survive new runs."""

from __future__ import annotations

import base64
import binascii
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import merge
from pathlib import Path

from libs.run_tree.beneath import real_place
from libs.run_tree.creation_errors import CreationError, CreationMissingError
from libs.run_tree.creation_json import creation_path, read_creation
from libs.run_tree.creation_record import CreationRecord, SyncStatus
from libs.run_tree.find_runs import find_runs
from libs.run_tree.run_path import PathOutsideRootError, RunKind, RunPath, RunPathError
from libs.run_tree.timestamp import MalformedTimeError, parse_time
from libs.service_kit.errors import FieldViolation, InvalidRequestError


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs; an empty field means any. Made at or after `created_after`, and before `created_before`."""

    project: str = ""
    kind: RunKind | None = None
    statuses: frozenset[SyncStatus] = frozenset()
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class ListedRun:
    """`creation` None: the folder is gone, or its file can't be read."""

    path: RunPath
    creation: CreationRecord | None


def runs_after(
    roots: Mapping[str, Sequence[Path]],
    logged: Sequence[str],
    status_of: Callable[[str], SyncStatus],
    wanted: RunFilter,
    after: str,
) -> Iterator[ListedRun]:
    """Matching runs behind the path `after`, sorted by path. Reads the disk as far as it is consumed.

    `roots`: by equipment, the folders that its runs lie below. `logged`: the runs that the log knows, sorted.
    """
    on_disk = sorted(
        str(run)
        for equipment_id, below in roots.items()
        for root in below
        for run in find_runs(root, equipment_id, wanted.project or None)
    )
    previous = ""
    for identity in merge(on_disk, logged):
        if identity <= after or identity == previous:
            continue
        previous = identity
        try:
            path = RunPath.parse(identity)
        except RunPathError:
            # A name that no caller could ask for; its findings tell of it.
            continue
        if path.equipment_id not in roots or (wanted.project and path.project != wanted.project):
            continue
        if wanted.statuses and status_of(identity) not in wanted.statuses:
            continue
        listed = ListedRun(path, _creation(roots[path.equipment_id], identity))
        if _matches(listed, wanted):
            yield listed


def logged_runs(connection: sqlite3.Connection) -> dict[str, SyncStatus]:
    """Every run that the log knows, with its status."""
    rows = connection.execute("SELECT run, sync_status FROM runs ORDER BY run").fetchall()
    return {run: SyncStatus(status) if status else SyncStatus.PENDING for run, status in rows}


def _matches(listed: ListedRun, wanted: RunFilter) -> bool:
    kind = listed.creation.run_kind if listed.creation is not None else listed.path.kind_by_leaf
    if wanted.kind is not None and kind is not wanted.kind:
        return False
    if wanted.created_after is None and wanted.created_before is None:
        return True
    created = _created(listed.creation)
    if created is None:
        return False
    not_before = wanted.created_after is None or created >= wanted.created_after
    return not_before and (wanted.created_before is None or created < wanted.created_before)


def _creation(roots: Sequence[Path], identity: str) -> CreationRecord | None:
    for root in roots:
        try:
            return read_creation(creation_path(real_place(root, identity)))
        except CreationMissingError:
            continue
        except (CreationError, PathOutsideRootError):
            return None
    return None


def _created(creation: CreationRecord | None) -> datetime | None:
    text = creation.raw.get("created_at") if creation is not None else None
    try:
        return parse_time(text) if isinstance(text, str) else None
    except MalformedTimeError:
        return None


def page_token(run: str) -> str:
    """Opaque; it names a place in the order, and so survives whatever is made meanwhile."""
    return base64.urlsafe_b64encode(b"runs:" + run.encode()).decode()


def place_of(token: str) -> str:
    """InvalidRequestError for a token that was never given out."""
    if not token:
        return ""
    try:
        name, _, run = base64.b64decode(token.encode(), altchars=b"-_", validate=True).partition(b":")
        if name == b"runs":
            return run.decode()
    except (binascii.Error, ValueError):
        pass
    raise InvalidRequestError(FieldViolation("page_token", "was not given out by this service"))
