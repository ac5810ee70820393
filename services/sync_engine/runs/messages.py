"""Runs and overrides as protobuf messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from labferry.sync.v1 import job_pb2, run_pb2
from libs.run_tree.creation_record import CreationRecord, SyncStatus
from libs.run_tree.overrides import active_overrides
from libs.run_tree.run_path import RunPath
from libs.run_tree.timestamp import MalformedTimeError
from services.sync_engine.jobs.job import SYNC_STATUSES
from services.sync_engine.runs.run import RULES, LoggedOverride, RunRecord
from services.sync_engine.runs.run_kinds import RUN_KINDS
from services.sync_engine.validation.finding import Rule


def run_message(
    path: RunPath, record: RunRecord, creation: CreationRecord | None, jobs: Sequence[job_pb2.Job]
) -> run_pb2.Run:
    """`creation` None: the file can't be read, or the run is shown as of an earlier moment."""
    kind = creation.run_kind if creation is not None else path.kind_by_leaf
    message = run_pb2.Run(
        run=str(path),
        equipment_id=path.equipment_id,
        project=path.project,
        run_kind=RUN_KINDS.to_proto(kind),
        sync_status=SYNC_STATUSES.to_proto(record.sync_status or SyncStatus.PENDING),
        jobs=jobs,
    )
    if creation is not None:
        message.creation.CopyFrom(_struct(creation.raw))
        if creation.sync_status is not (record.sync_status or SyncStatus.PENDING):
            message.foreign_sync_status = creation.sync_status.value
    return message


def known_fields(record: RunRecord) -> Struct:
    """What the log holds of a creation.json: its status and its overrides."""
    status = record.sync_status or SyncStatus.PENDING
    return _struct({"sync_status": status.value, "validation_overrides": [dict(e.raw) for e in record.entries]})


def override_message(run: str, logged: LoggedOverride, active_ids: frozenset[str]) -> run_pb2.Override:
    entry = logged.entry
    message = run_pb2.Override(
        id=entry.id or "",
        run=run,
        operator=entry.operator or "",
        reason=entry.reason or "",
        revoked=entry.revoked,
        active=entry.id in active_ids,
        imported=logged.imported,
    )
    if not entry.revoked and entry.problem_class in {r.value for r in Rule}:
        message.problem_class = RULES.to_proto(Rule(entry.problem_class))
    if entry.recorded_at is not None:
        message.recorded_at.FromDatetime(entry.recorded_at)
    if entry.revoked and entry.revokes is not None:
        message.revokes = entry.revokes
    try:
        expires = entry.expires_at
    except MalformedTimeError:
        # It counts as expired (FORMATS §4); `active` says so.
        expires = None
    if expires is not None:
        message.expires_at.FromDatetime(expires)
    return message


def override_messages(record: RunRecord, now: datetime) -> list[run_pb2.Override]:
    active = active_overrides(record.entries, now).ids
    return [override_message(record.run, logged, active) for logged in record.overrides]


def _struct(document: Mapping[str, object]) -> Struct:
    return ParseDict(dict(document), Struct())
