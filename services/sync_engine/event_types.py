"""Every event type of the sync engine's log."""

from __future__ import annotations

from labferry.events.v1 import equipment_events_pb2 as equipment
from labferry.events.v1 import job_events_pb2 as job
from labferry.events.v1 import run_events_pb2 as run
from labferry.events.v1 import staging_events_pb2 as staging
from libs.event_log.event import EventType, EventTypes
from libs.event_log.genesis import LOG_EVENT_TYPES

EVENT_TYPES = EventTypes(
    (
        *LOG_EVENT_TYPES,
        EventType("sync.job.queued.v1", job.JobQueued),
        EventType("sync.job.started.v1", job.JobStarted),
        EventType("sync.job.requeued.v1", job.JobRequeued),
        EventType("sync.job.files_landing.v1", job.JobFilesLanding),
        EventType("sync.job.copied.v1", job.JobCopied),
        EventType("sync.job.verified.v1", job.JobVerified),
        EventType("sync.job.verification_failed.v1", job.JobVerificationFailed),
        EventType("sync.job.sealed.v1", job.JobSealed),
        EventType("sync.job.waiting.v1", job.JobWaiting),
        EventType("sync.job.attempt_failed.v1", job.JobAttemptFailed),
        EventType("sync.job.failed.v1", job.JobFailed),
        EventType("sync.job.rearmed.v1", job.JobRearmed),
        EventType("sync.job.paused.v1", job.JobPaused),
        EventType("sync.job.resumed.v1", job.JobResumed),
        EventType("sync.job.cancelled.v1", job.JobCancelled),
        EventType("sync.job.swept.v1", job.JobSwept),
        EventType("sync.job.priority_changed.v1", job.JobPriorityChanged),
        EventType("sync.job.files_scrubbed.v1", job.JobFilesScrubbed),
        EventType("sync.job.copy_repaired.v1", job.JobCopyRepaired),
        EventType("sync.job.repair_landed.v1", job.JobRepairLanded),
        EventType("sync.job.repair_ended.v1", job.JobRepairEnded),
        EventType("sync.job.cleanup_held.v1", job.JobCleanupHeld),
        EventType("sync.job.cleanup_eligible.v1", job.JobCleanupEligible),
        EventType("sync.job.cleaned.v1", job.JobCleaned),
        EventType("sync.run.adopted.v1", run.RunAdopted),
        EventType("sync.run.enqueue_blocked.v1", run.RunEnqueueBlocked),
        EventType("sync.run.sync_status_changed.v1", run.RunSyncStatusChanged),
        EventType("sync.run.override_recorded.v1", run.RunOverrideRecorded),
        EventType("sync.run.override_revoked.v1", run.RunOverrideRevoked),
        EventType("sync.run.override_imported.v1", run.RunOverrideImported),
        EventType("sync.run.change_accepted.v1", run.RunChangeAccepted),
        EventType("sync.run.cleanup_begun.v1", run.RunCleanupBegun),
        EventType("sync.run.cleanup_ended.v1", run.RunCleanupEnded),
        EventType("sync.equipment.paused.v1", equipment.EquipmentPaused),
        EventType("sync.equipment.resumed.v1", equipment.EquipmentResumed),
        EventType("sync.destination.probed.v1", equipment.DestinationProbed),
        EventType("sync.destination.doubted.v1", equipment.DestinationDoubted),
        EventType("sync.destination.trusted.v1", equipment.DestinationTrusted),
        EventType("sync.staging.discovered.v1", staging.StagingDiscovered),
        EventType("sync.staging.completed.v1", staging.StagingCompleted),
        EventType("sync.staging.queued.v1", staging.StagingQueued),
        EventType("sync.staging.verified.v1", staging.StagingVerified),
        EventType("sync.staging.cleared.v1", staging.StagingCleared),
        EventType("sync.staging.held.v1", staging.StagingHeld),
    )
)

ENGINE = "service:sync_engine"
"""Actor of what the engine does by itself."""


def job_stream(job_id: str) -> str:
    return f"job-{job_id}"


def equipment_stream(equipment_id: str) -> str:
    return f"equipment-{equipment_id}"


def destination_stream(equipment_id: str, destination: str) -> str:
    return f"destination-{equipment_id}/{destination}"


def staged_stream(run_path: str) -> str:
    return f"staged-{run_path}"


def run_stream(run_path: str) -> str:
    return f"run-{run_path}"
