"""A run as the event log knows it: its sync_status and the array of its overrides. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC

import msgspec
from google.protobuf.message import Message
from msgspec.structs import replace

from labferry.events.v1 import run_events_pb2 as events
from labferry.sync.v1 import finding_pb2
from libs.run_tree.creation_record import SyncStatus
from libs.run_tree.json_value import decode_json
from libs.run_tree.overrides import OverrideEntry
from libs.service_kit.enum_names import ProtoNames
from services.sync_engine.jobs.job import SYNC_STATUSES, Job, JobState, WaitCondition
from services.sync_engine.validation.finding import Rule

RULES = ProtoNames(Rule, finding_pb2.Rule, "RULE")


@dataclass(frozen=True, slots=True)
class LoggedOverride:
    """An entry of `validation_overrides` as the log tells it; `imported` when another program wrote it."""

    entry: OverrideEntry
    imported: bool


@dataclass(frozen=True, slots=True)
class AcceptedChange:
    """That a destination's copy of a file may be superseded: bound to both contents. `destination` empty: any;
    `new_sha256` empty: the file was removed."""

    destination: str
    path: bytes
    old_sha256: str
    new_sha256: str


@dataclass(frozen=True, slots=True)
class OpenCleanup:
    """A deletion that was begun and not ended: the blob of its ticket, and the verifications that allow it as
    (destination, job, position)."""

    ticket_blob: str
    evidence: tuple[tuple[str, str, int], ...]


class RunRecord(msgspec.Struct, frozen=True):
    """`sync_status` None: Labferry never said anything about this run, so its file is left as it is."""

    run: str
    sync_status: SyncStatus | None = None
    overrides: tuple[LoggedOverride, ...] = ()
    accepted: tuple[AcceptedChange, ...] = ()
    open_cleanup: OpenCleanup | None = None
    revision: int = -1

    @property
    def entries(self) -> tuple[OverrideEntry, ...]:
        return tuple(logged.entry for logged in self.overrides)

    def accepted_at(self, destination: str) -> tuple[AcceptedChange, ...]:
        """The changes that may be brought to one destination, oldest first."""
        return tuple(a for a in self.accepted if a.destination in ("", destination))


class OverrideError(Exception):
    """An override can't be revoked; the message says why."""

    def __init__(self, run: str, override_id: str, message: str) -> None:
        super().__init__(message)
        self.run, self.override_id = run, override_id


class OverrideNotFoundError(OverrideError):
    """The run has no override of that id."""


class OverrideNotRevocableError(OverrideError):
    """It is a tombstone, or a tombstone revokes it already."""


def evolve(record: RunRecord, event: Message) -> RunRecord:
    """The run after one more event. Events that say nothing about status or overrides only count as a revision."""
    return replace(_after(record, event), revision=record.revision + 1)


def _after(record: RunRecord, event: Message) -> RunRecord:
    match event:
        case events.RunSyncStatusChanged():
            return replace(record, sync_status=SYNC_STATUSES.from_proto(event.current))
        case events.RunOverrideRecorded():
            return replace(record, overrides=(*record.overrides, LoggedOverride(_recorded(event), False)))
        case events.RunOverrideRevoked():
            return replace(record, overrides=(*record.overrides, LoggedOverride(_tombstone(event), False)))
        case events.RunChangeAccepted():
            path = event.path_bytes or event.path.encode()
            change = AcceptedChange(event.destination, path, event.old_sha256, event.new_sha256)
            return replace(record, accepted=(*record.accepted, change))
        case events.RunCleanupBegun():
            evidence = tuple((e.destination, e.job_id, e.position) for e in event.evidence)
            return replace(record, open_cleanup=OpenCleanup(event.ticket_blob, evidence))
        case events.RunCleanupEnded():
            return replace(record, open_cleanup=None)
        case events.RunOverrideImported():
            raw = decode_json(event.entry_json.encode())
            if not isinstance(raw, dict):
                raise ValueError(f"imported override {event.override_id} is no JSON object")
            entry = OverrideEntry(raw)
            array = list(record.overrides)
            array.insert(event.file_index, LoggedOverride(entry, True))
            return replace(record, overrides=tuple(array))
        case _:
            return record


def _recorded(event: events.RunOverrideRecorded) -> OverrideEntry:
    return OverrideEntry.permission(
        override_id=event.override_id,
        problem_class=RULES.from_proto(event.problem_class).value,
        operator=event.operator,
        recorded_at=event.recorded_at.ToDatetime(tzinfo=UTC),
        reason=event.reason,
        expires_at=event.expires_at.ToDatetime(tzinfo=UTC) if event.HasField("expires_at") else None,
    )


def _tombstone(event: events.RunOverrideRevoked) -> OverrideEntry:
    return OverrideEntry.tombstone(
        tombstone_id=event.tombstone_id,
        revokes=event.override_id,
        operator=event.operator,
        recorded_at=event.recorded_at.ToDatetime(tzinfo=UTC),
        reason=event.reason,
    )


def check_revocable(record: RunRecord, override_id: str) -> None:
    """Raises unless `override_id` is an override that nothing revokes yet."""
    run = record.run
    found = next((e for e in record.entries if e.id == override_id), None)
    if found is None:
        raise OverrideNotFoundError(run, override_id, f"run {run} has no override {override_id}")
    if found.revoked:
        raise OverrideNotRevocableError(run, override_id, f"{override_id} is a tombstone; it can't be revoked")
    if any(e.revoked and e.revokes == override_id for e in record.entries):
        raise OverrideNotRevocableError(run, override_id, f"override {override_id} is revoked already")


def status_change(record: RunRecord, wanted: SyncStatus) -> Sequence[Message]:
    """The event that makes `wanted` the run's sync_status; none when it is that already."""
    if record.sync_status is wanted:
        return ()
    previous = record.sync_status or SyncStatus.PENDING
    return (
        events.RunSyncStatusChanged(
            run=record.run, previous=SYNC_STATUSES.to_proto(previous), current=SYNC_STATUSES.to_proto(wanted)
        ),
    )


def status_after_refusal(record: RunRecord) -> SyncStatus:
    """A refused run is blocked, unless it is synced or cleaned: that stays (SPEC §3 gate)."""
    if record.sync_status in (SyncStatus.SYNCED, SyncStatus.CLEANED):
        return record.sync_status
    return SyncStatus.BLOCKED_BY_VALIDATION


def status_by_jobs(record: RunRecord, required: Sequence[Job | None]) -> SyncStatus:
    """What the jobs to the required destinations make of the run; None stands for a destination without a job."""
    if record.sync_status in (SyncStatus.SYNCED, SyncStatus.CLEANED):
        return record.sync_status
    if not required:
        # Nothing says any more where the run belongs, so nothing can be said about its being there.
        return record.sync_status or SyncStatus.PENDING
    if all(job is not None and job.state in (JobState.VERIFIED, JobState.CLEANUP_ELIGIBLE) for job in required):
        return SyncStatus.SYNCED
    if any(job is not None and job.state is JobState.FAILED for job in required):
        return SyncStatus.FAILED
    if any(job is not None and job.wait is not None and job.wait.condition is WaitCondition.GATE for job in required):
        return SyncStatus.BLOCKED_BY_VALIDATION
    return SyncStatus.PENDING
