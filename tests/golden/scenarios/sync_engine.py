"""The sync engine's log: jobs that fail, wait, are carried, verified and sealed, and runs with their overrides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from labferry.events.v1 import equipment_events_pb2 as equipment
from labferry.events.v1 import job_events_pb2 as job
from labferry.events.v1 import run_events_pb2 as run
from labferry.events.v1 import staging_events_pb2 as staging
from labferry.sync.v1 import (
    equipment_service_pb2,
    finding_pb2,
    job_pb2,
    run_pb2,
    staging_service_pb2,
    sync_service_pb2,
)
from libs.event_log.event import RecordedEvent
from libs.event_log.projection import ProjectionRunner
from libs.event_log.sqlite_store import SqliteEventStore
from libs.run_tree.ingest_record import StagingState
from services.sync_engine.engine_log import EngineLog
from services.sync_engine.event_types import (
    EVENT_TYPES,
    destination_stream,
    equipment_stream,
    job_stream,
    run_stream,
    staged_stream,
)
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.read_model import JobFilter, JobsProjection, jobs_where
from services.sync_engine.runs.read_model import RunsProjection, run_record, runs_known
from services.sync_engine.runs.run import RunRecord
from services.sync_engine.staging.read_model import StagingProjection, staged_runs_in
from services.sync_engine.staging.staged_run import StagedRun
from tests.golden.scenario import LOG_COPIES, REFUSED_CALLS, Fact, GoldenService, Json, Scenario

_RUN = "CONFOCAL_01/Cortex Q3 Pilot/Runs/Run_2026-04-17T14-32"
_CARRIED, _REFUSED = "019d9c00-0000-7000-8000-000000000001", "019d9c00-0000-7000-8000-000000000002"
_HELD_JOB = "019d9c00-0000-7000-8000-000000000003"
_PLACE = {"run": _RUN, "equipment_id": "CONFOCAL_01"}
_OVERRIDE, _TOMBSTONE = "0b6b3a1e-5d8e-4d55-9a43-1f3f2ec2d101", "0b6b3a1e-5d8e-4d55-9a43-1f3f2ec2d102"
_FOREIGN = "0b6b3a1e-5d8e-4d55-9a43-1f3f2ec2d103"
_MANIFEST, _FILES, _BATCH, _SNAPSHOT = ("1" * 64, "2" * 64, "3" * 64, "4" * 64)
_LATER = Timestamp(seconds=1_776_440_000, nanos=500_000_000)
_UNREACHABLE = job_pb2.JobFailure(
    kind=job_pb2.FAILURE_KIND_NETWORK, message="the share doesn't answer", paths=["a.tif", "sub/größe.csv"]
)
_REPORT = sync_service_pb2.VerifyReport(
    run=_RUN,
    destination="nas",
    job_id=_CARRIED,
    expected=3,
    hashed=2,
    matched=1,
    missing=["a.tif"],
    differing=["sub/b.csv"],
    unexpected=["c.tmp"],
    method="uncached_read",
)
_FINDING = finding_pb2.Finding(
    rule=finding_pb2.RULE_UNRESOLVED_PLACEHOLDER_TOKEN,
    tier=finding_pb2.TIER_HARD,
    run_path=_RUN,
    offending_path="notes_{date}.txt",
    offending_kind=finding_pb2.OFFENDING_KIND_FILE_NAME,
    matched_token="{date}",
)


def _carried(*payloads: object) -> list[Fact]:
    return [Fact(job_stream(_CARRIED), p, actor="service:sync_engine") for p in payloads]  # type: ignore[arg-type]


def _attempt(number: int) -> job.JobStarted:
    return job.JobStarted(attempt=number, engine_id="e-1", incoming_folder=f"{_CARRIED}-{number}")


def _landing(attempt: int) -> job.JobFilesLanding:
    return job.JobFilesLanding(attempt=attempt, batch_blob=_BATCH, file_count=3, byte_count=4096)


def _copied(attempt: int) -> job.JobCopied:
    return job.JobCopied(attempt=attempt, manifest_blob=_MANIFEST, files_blob=_FILES, file_count=3, byte_count=4096)


def _verified(occasion: str) -> job.JobVerified:
    return job.JobVerified(
        manifest_sha256=_MANIFEST,
        expected=3,
        hashed=3,
        matched=3,
        method="uncached_read",
        grade="E4",
        host="workstation-1",
        note="memory",
        evidence_blob=_FILES,
        occasion=occasion,
    )


def _status(previous: int, current: int) -> run.RunSyncStatusChanged:
    return run.RunSyncStatusChanged(run=_RUN, previous=previous, current=current)  # type: ignore[arg-type]


_RUN_BEFORE = [
    Fact(
        run_stream(_RUN),
        run.RunAdopted(
            run=_RUN,
            equipment_id="CONFOCAL_01",
            project="Cortex Q3 Pilot",
            run_kind=run_pb2.RUN_KIND_EXPERIMENTAL,
            source_folder="/data/foreign/größe",
            file_count=3,
            byte_count=4096,
            operator="asmith",
        ),
        correlation_id="c-1",
    ),
    Fact(run_stream(_RUN), run.RunEnqueueBlocked(run=_RUN, findings=[_FINDING], finding_count=1)),
    Fact(run_stream(_RUN), _status(run_pb2.SYNC_STATUS_PENDING, run_pb2.SYNC_STATUS_BLOCKED_BY_VALIDATION)),
    Fact(
        run_stream(_RUN),
        run.RunOverrideRecorded(
            run=_RUN,
            override_id=_OVERRIDE,
            problem_class=finding_pb2.RULE_UNRESOLVED_PLACEHOLDER_TOKEN,
            operator="asmith",
            recorded_at=Timestamp(seconds=1_776_436_400),
            reason="meant so",
            expires_at=Timestamp(seconds=1_776_522_800),
        ),
        reason="meant so",
    ),
    Fact(
        run_stream(_RUN),
        run.RunOverrideImported(
            run=_RUN,
            override_id=_FOREIGN,
            entry_json='{"id": "' + _FOREIGN + '", "problem_class": "leftover_jinja_marker", "later": [1, null]}',
            file_index=0,
        ),
        actor="service:sync_engine",
    ),
    Fact(
        run_stream(_RUN),
        run.RunOverrideRevoked(
            run=_RUN,
            tombstone_id=_TOMBSTONE,
            override_id=_OVERRIDE,
            operator="asmith",
            recorded_at=Timestamp(seconds=1_776_436_500),
            reason="no longer",
        ),
        reason="no longer",
    ),
]
_JOBS = [
    Fact(
        job_stream(_CARRIED),
        job.JobQueued(job_id=_CARRIED, destination="nas", amendment=1, priority=5, **_PLACE),
        correlation_id="c-2",
    ),
    Fact(job_stream(_REFUSED), job.JobQueued(job_id=_REFUSED, destination="archive", **_PLACE)),
    *_carried(
        job.JobWaiting(
            condition=job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE,
            detail="nas is not mounted",
            next_try_time=_LATER,
            pause=Duration(seconds=30),
            failure=_UNREACHABLE,
        ),
        _attempt(1),
        job.JobRequeued(cause="engine_restarted"),
        _attempt(2),
        job.JobAttemptFailed(failure=_UNREACHABLE, next_attempt_time=_LATER, pause=Duration(seconds=120)),
        _attempt(3),
        _landing(3),
        _copied(3),
        job.JobVerificationFailed(report=_REPORT, occasion="transfer"),
        job.JobAttemptFailed(
            failure=job_pb2.JobFailure(kind=job_pb2.FAILURE_KIND_HASH_MISMATCH, message="b.csv differs"),
            next_attempt_time=_LATER,
        ),
        _attempt(4),
        _landing(4),
        _copied(4),
        _verified("transfer"),
        job.JobSealed(snapshot_blob=_SNAPSHOT, file_count=4, sync_status=run_pb2.SYNC_STATUS_SYNCED),
        job.JobVerificationFailed(report=_REPORT, occasion="request"),
        _verified("request"),
    ),
    Fact(job_stream(_REFUSED), job.JobFailed(failure=_UNREACHABLE), actor="service:sync_engine"),
    Fact(job_stream(_REFUSED), job.JobRearmed(command="retry"), reason="the share is back"),
    Fact(run_stream(_RUN), _status(run_pb2.SYNC_STATUS_BLOCKED_BY_VALIDATION, run_pb2.SYNC_STATUS_SYNCED)),
]
_HELD = [
    Fact(
        run_stream(_RUN),
        run.RunChangeAccepted(
            run=_RUN,
            destination="nas",
            path="sub/b.csv",
            old_sha256="5" * 64,
            new_sha256="6" * 64,
            operator="asmith",
            path_bytes=b"sub/\xff.csv",
        ),
        reason="the instrument wrote it anew",
    ),
    Fact(
        job_stream(_HELD_JOB),
        job.JobQueued(job_id=_HELD_JOB, destination="nas", amends_job_id=_CARRIED, amendment=2, **_PLACE),
    ),
    Fact(equipment_stream("CONFOCAL_01"), equipment.EquipmentPaused(equipment_id="CONFOCAL_01"), reason="service"),
    Fact(equipment_stream("CONFOCAL_01"), equipment.EquipmentResumed(equipment_id="CONFOCAL_01")),
    Fact(job_stream(_HELD_JOB), job.JobPriorityChanged(previous=0, priority=9), reason="urgent"),
    Fact(job_stream(_HELD_JOB), job.JobStarted(attempt=1, engine_id="e-1", incoming_folder=f"{_HELD_JOB}-1")),
    Fact(job_stream(_HELD_JOB), job.JobPaused(), reason="not now"),
    Fact(job_stream(_HELD_JOB), job.JobResumed()),
    Fact(job_stream(_HELD_JOB), job.JobCancelled(), reason="the wrong run"),
    Fact(job_stream(_HELD_JOB), job.JobSwept(), actor="service:sync_engine"),
]
_EVIDENCE = [run.CleanupEvidence(destination="nas", job_id=_CARRIED, position=7)]
_PROOF_KEPT = [
    Fact(job_stream(_CARRIED), job.JobQueued(job_id=_CARRIED, destination="nas", **_PLACE)),
    *_carried(
        _attempt(1),
        _landing(1),
        _copied(1),
        _verified("transfer"),
        job.JobSealed(
            snapshot_blob=_SNAPSHOT,
            file_count=5,
            sync_status=run_pb2.SYNC_STATUS_SYNCED,
            receipt_blob="7" * 64,
        ),
        _verified("audit"),
        job.JobFilesScrubbed(
            evidence_blob=_FILES,
            file_count=2,
            byte_count=4000,
            method="uncached_read",
            grade="E4",
            host="workstation-1",
            note="memory",
            oldest_evidence_time=_LATER,
        ),
        job.JobVerificationFailed(
            report=sync_service_pb2.VerifyReport(run=_RUN, destination="nas", note="network: it went away"),
            occasion="audit",
        ),
        job.JobCopyRepaired(batch_blob=_BATCH, file_count=1, byte_count=96),
        _verified("audit"),
        job.JobCleanupHeld(interlocks=["age", "gate_open"], detail="24 h are wanted"),
        _verified("audit"),
        _verified("cleanup"),
    ),
    Fact(
        run_stream(_RUN),
        run.RunCleanupBegun(
            run=_RUN, ticket_blob=_FILES, file_count=3, byte_count=4096, evidence=_EVIDENCE, with_cache=True
        ),
        reason="the disk is full",
    ),
    *_carried(job.JobCleanupEligible(), job.JobCleanupHeld(interlocks=["files_left"], detail="still here: a.tif")),
    Fact(
        run_stream(_RUN),
        run.RunCleanupEnded(
            run=_RUN,
            file_count=2,
            byte_count=4000,
            evidence=_EVIDENCE,
            remaining=[run_pb2.RemainingFile(path="gr\ufffd.tif", path_bytes=b"gr\xff.tif", why="it appeared later")],
            remaining_count=1,
            interrupted=True,
        ),
    ),
    *_carried(job.JobCleanupEligible(), job.JobCleaned()),
    Fact(
        run_stream(_RUN),
        run.RunCleanupEnded(
            run=_RUN, cleaned=True, file_count=1, byte_count=96, evidence=_EVIDENCE, cache_deleted=True
        ),
    ),
    Fact(run_stream(_RUN), _status(run_pb2.SYNC_STATUS_SYNCED, run_pb2.SYNC_STATUS_CLEANED)),
]
_MOVED_ON = job.JobVerificationFailed(
    report=sync_service_pb2.VerifyReport(
        run=_RUN, destination="nas", expected=2, hashed=1, matched=1, differing=["a.tif"], unreadable=["a.tif: EIO"]
    ),
    occasion="scrub",
    evidence_blob=_FILES,
    unproven_blob=_BATCH,
    oldest_evidence_time=_LATER,
)
_RAISED = _verified("request")
_RAISED.max_stream_bytes = 1 << 40
READ_AGAIN = Scenario(
    "read-again",
    (
        Fact(job_stream(_CARRIED), job.JobQueued(job_id=_CARRIED, destination="nas", **_PLACE)),
        *_carried(_attempt(1), _landing(1), _copied(1), _RAISED, _MOVED_ON, _verified("audit")),
    ),
)
_GIVEN_UP = job.JobVerificationFailed(
    report=sync_service_pb2.VerifyReport(
        run=_RUN, destination="nas", expected=2, hashed=2, matched=1, differing=["a.tif"]
    ),
    occasion="audit",
    evidence_blob=_FILES,
    unproven_blob=_BATCH,
    given_up=["a.tif"],
)
REPAIRED = Scenario(
    "repaired",
    (
        Fact(job_stream(_CARRIED), job.JobQueued(job_id=_CARRIED, destination="nas", **_PLACE)),
        *_carried(
            _attempt(1),
            _landing(1),
            _copied(1),
            _verified("transfer"),
            _MOVED_ON,
            job.JobCopyRepaired(batch_blob=_BATCH, file_count=1, byte_count=96),
            job.JobRepairLanded(batch_count=1),
            _GIVEN_UP,
        ),
    ),
)
REPAIR_ENDED = Scenario(
    "repair-ended",
    (
        Fact(job_stream(_CARRIED), job.JobQueued(job_id=_CARRIED, destination="nas", **_PLACE)),
        *_carried(
            _attempt(1),
            _landing(1),
            _copied(1),
            _verified("transfer"),
            _GIVEN_UP,
            job.JobCopyRepaired(batch_blob=_BATCH, file_count=1, byte_count=96),
            job.JobRepairLanded(batch_count=1),
            job.JobRepairEnded(problem="not put back: a.tif: it was wrong after that already", file_count=1),
        ),
    ),
)
SENT_AGAIN = Scenario(
    "sent-again",
    (
        Fact(job_stream(_CARRIED), job.JobQueued(job_id=_CARRIED, destination="nas", **_PLACE)),
        *_carried(
            _attempt(1),
            _landing(1),
            _copied(1),
            job.JobVerificationFailed(
                report=_REPORT, occasion="request", differing_blob=_FILES, max_stream_bytes=1 << 40
            ),
            job.JobAttemptFailed(
                failure=job_pb2.JobFailure(kind=job_pb2.FAILURE_KIND_HASH_MISMATCH, message="b.csv differs"),
                next_attempt_time=_LATER,
            ),
            _attempt(2),
            _landing(2),
            _copied(2),
            _verified("transfer"),
        ),
    ),
)
INTERRUPTED = Scenario(
    "interrupted-cleanup",
    (
        Fact(job_stream(_CARRIED), job.JobQueued(job_id=_CARRIED, destination="nas", **_PLACE)),
        *_carried(_attempt(1), _copied(1), _verified("transfer")),
        Fact(
            run_stream(_RUN),
            run.RunCleanupBegun(run=_RUN, ticket_blob=_FILES, file_count=3, byte_count=4096, evidence=_EVIDENCE),
        ),
        *_carried(job.JobCleanupEligible()),
        Fact(
            run_stream(_RUN),
            run.RunCleanupEnded(
                run=_RUN, cleaned=True, evidence=_EVIDENCE, interrupted=True, gone_count=3, gone_byte_count=4096
            ),
            actor="service:sync_engine",
        ),
        *_carried(job.JobCleaned()),
    ),
)
FIRST_RELEASE = Scenario("first-release", (*_RUN_BEFORE, *_JOBS, *_HELD, *LOG_COPIES))


async def _state_after(store: SqliteEventStore, event: RecordedEvent) -> Json:
    log = EngineLog(store)
    kind, _, name = event.stream.partition("-")
    if kind == "job":
        then = await log.job(name, upto_position=event.position)
        return None if then is None else _state(then)
    return _state(await log.run(name, upto_position=event.position)) if kind == "run" else None


async def _read_models(store: SqliteEventStore, folder: Path) -> Mapping[str, Json]:
    models = (JobsProjection(), RunsProjection(), StagingProjection())
    projections = ProjectionRunner(store, EVENT_TYPES, folder / "read_models.sqlite3", models)
    await projections.start()
    try:
        jobs = await projections.query(lambda c: jobs_where(c, JobFilter()))
        runs = await projections.query(lambda c: [run_record(c, name) for name in sorted(runs_known(c))])
        staged = await projections.query(lambda c: staged_runs_in(c, tuple(StagingState)))
    finally:
        await projections.close()
    return {
        "jobs": [_state(placed.job) for placed in jobs],
        "runs": [_state(record) for record in runs],
        "staged": [_state(record) for record in staged],
    }


def _state(folded: Job | RunRecord | StagedRun) -> Json:
    return msgspec.json.decode(msgspec.json.encode(folded))


PROOF_KEPT = Scenario("proof-kept", (*_PROOF_KEPT,))
_NAS = {"equipment_id": "CONFOCAL_01", "destination": "nas"}
TARGETS = Scenario(
    "targets",
    (
        Fact(
            destination_stream("CONFOCAL_01", "nas"),
            equipment.DestinationProbed(
                probe=equipment_service_pb2.DestinationProbe(
                    case_sensitive=True, max_name_bytes=255, keeps_unicode_forms=True
                ),
                **_NAS,
            ),
            actor="service:sync_engine",
        ),
        Fact(
            destination_stream("CONFOCAL_01", "nas"),
            equipment.DestinationDoubted(job_id=_CARRIED, attempt=2, paths=[f"{_RUN}/a.tif"], **_NAS),
            actor="service:sync_engine",
        ),
        Fact(destination_stream("CONFOCAL_01", "nas"), equipment.DestinationTrusted(**_NAS), reason="a new cable"),
    ),
)
STAGING = Scenario(
    "staging",
    tuple(
        Fact(staged_stream(_RUN), payload, actor="service:sync_engine")
        for payload in (
            staging.StagingDiscovered(
                run=_RUN,
                equipment_id="CONFOCAL_01",
                project="Cortex Q3 Pilot",
                run_kind=run_pb2.RUN_KIND_EXPERIMENTAL,
                host="workstation-1",
            ),
            staging.StagingHeld(
                run=_RUN, hold=staging_service_pb2.STAGING_HOLD_STALLED, detail="There is no files.json."
            ),
            staging.StagingHeld(run=_RUN),
            staging.StagingCompleted(
                run=_RUN,
                file_count=3,
                byte_count=4096,
                signal=staging_service_pb2.COMPLETENESS_SIGNAL_MANIFEST,
                signal_file="files.json",
                host="workstation-1",
            ),
            staging.StagingQueued(run=_RUN, job_ids=[_CARRIED, _REFUSED], host="workstation-1"),
            staging.StagingVerified(run=_RUN, nas_path="//nas/lab/größe", host="workstation-1"),
            staging.StagingHeld(run=_RUN, hold=staging_service_pb2.STAGING_HOLD_GONE, detail="Its folder is gone."),
            staging.StagingCleared(run=_RUN, host="workstation-2"),
        )
    ),
)
REFUSED = Scenario("refused-calls", REFUSED_CALLS)

SCENARIOS = (
    FIRST_RELEASE,
    PROOF_KEPT,
    TARGETS,
    STAGING,
    REFUSED,
    READ_AGAIN,
    REPAIRED,
    REPAIR_ENDED,
    SENT_AGAIN,
    INTERRUPTED,
)

SYNC_ENGINE = GoldenService("sync_engine", EVENT_TYPES, SCENARIOS, _state_after, _read_models)
