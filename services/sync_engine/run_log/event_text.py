"""What an event says to people, in one line of the run's own log. Pure."""

from __future__ import annotations

from google.protobuf.message import Message

from labferry.events.v1 import job_events_pb2 as job
from labferry.events.v1 import run_events_pb2 as run
from libs.run_tree.wizard_log import LogLevel
from services.sync_engine.jobs.failure import wrong_counts
from services.sync_engine.jobs.job import SYNC_STATUSES, WAIT_CONDITIONS
from services.sync_engine.runs.run import RULES

Said = tuple[LogLevel, str]
_INFO, _WARN = LogLevel.INFO, LogLevel.WARN


def said(event_type: str, payload: Message | None, actor: str, reason: str) -> Said:
    """The level and the text. An event that has no words of its own is told by its type."""
    level, text = _text(event_type, payload)
    by = f" by {actor}" if actor and not actor.startswith("service:") else ""
    why = f": {reason}" if reason else ""
    return level, f"{text}{by}{why}"


def _text(event_type: str, payload: Message | None) -> Said:
    found = _of_job(payload) or _of_run(payload)
    return found if found is not None else (_INFO, event_type)


def _of_job(payload: Message | None) -> Said | None:
    match payload:
        case job.JobQueued():
            amendment = f", amendment {payload.amendment}" if payload.amendment else ""
            return _INFO, f"queued for {payload.destination}{amendment} (job {payload.job_id})"
        case job.JobStarted():
            return _INFO, f"attempt {payload.attempt} began"
        case job.JobRequeued():
            return _WARN, f"the attempt was cut off ({payload.cause}) and will be begun anew"
        case job.JobFilesLanding():
            return LogLevel.DEBUG, f"{payload.file_count} files of {payload.byte_count} bytes are moved into place"
        case job.JobCopied():
            return _INFO, f"all {payload.file_count} files of {payload.byte_count} bytes are in place"
        case job.JobVerified():
            read = f"{payload.matched} of {payload.expected} files match, {payload.grade} by {payload.method}"
            return _INFO, f"verified: {read} ({payload.occasion})"
        case job.JobVerificationFailed():
            report = payload.report
            missing, differing = wrong_counts(report)
            wrong = f"{missing} missing, {differing} differing"
            return _WARN, f"verification failed: {wrong} of {report.expected} files ({payload.occasion})"
        case job.JobSealed():
            return _INFO, f"sealed with {payload.file_count} files"
        case job.JobWaiting():
            return _WARN, f"waits for {WAIT_CONDITIONS.from_proto(payload.condition)}: {payload.detail}"
        case job.JobAttemptFailed():
            again = payload.next_attempt_time.ToJsonString()
            return _WARN, f"the attempt failed and is repeated at {again}: {payload.failure.message}"
        case job.JobFailed():
            return LogLevel.ERROR, f"failed: {payload.failure.message}"
        case job.JobRearmed():
            return _INFO, f"begun anew ({payload.command})"
        case job.JobPaused():
            return _INFO, "paused"
        case job.JobResumed():
            return _INFO, "resumed"
        case job.JobCancelled():
            return _WARN, "cancelled"
        case job.JobSwept():
            return LogLevel.DEBUG, "temporary files at the destination are removed"
        case job.JobPriorityChanged():
            return _INFO, f"priority changed from {payload.previous} to {payload.priority}"
        case job.JobFilesScrubbed():
            return LogLevel.DEBUG, f"{payload.file_count} files of {payload.byte_count} bytes were read back and match"
        case job.JobCopyRepaired():
            return _WARN, f"{payload.file_count} files of {payload.byte_count} bytes that had rotted are put back"
        case job.JobRepairLanded():
            return _INFO, "what was put back is in its place"
        case job.JobRepairEnded():
            if payload.problem:
                return _WARN, f"of what had rotted not everything is put back: {payload.problem}"
            return LogLevel.DEBUG, f"{payload.file_count} files that had rotted were put back"
        case job.JobCleanupHeld():
            return _INFO, f"local files are kept because of {', '.join(payload.interlocks)}: {payload.detail}"
        case job.JobCleanupEligible():
            return _INFO, "every interlock holds: local files may be deleted"
        case job.JobCleaned():
            return _INFO, "local files are deleted"
        case _:
            return None


def _of_run(payload: Message | None) -> Said | None:
    match payload:
        case run.RunAdopted():
            return _INFO, "adopted"
        case run.RunEnqueueBlocked():
            return _WARN, f"not queued: {payload.finding_count} hard findings without an active override"
        case run.RunSyncStatusChanged():
            now, before = SYNC_STATUSES.from_proto(payload.current), SYNC_STATUSES.from_proto(payload.previous)
            return _INFO, f"sync_status is {now} (was {before})"
        case run.RunOverrideRecorded():
            rule = RULES.from_proto(payload.problem_class)
            return _INFO, f"override {payload.override_id} of {rule} recorded for {payload.operator}: {payload.reason}"
        case run.RunOverrideRevoked():
            return _INFO, f"override {payload.override_id} revoked for {payload.operator}: {payload.reason}"
        case run.RunOverrideImported():
            return _INFO, f"override {payload.override_id} found in creation.json"
        case run.RunChangeAccepted():
            change = f"{payload.path}: {payload.old_sha256 or 'nothing'} may become {payload.new_sha256 or 'nothing'}"
            return _INFO, f"change accepted for {payload.operator}: {change}"
        case run.RunCleanupBegun():
            return _WARN, f"{payload.file_count} local files of {payload.byte_count} bytes are about to be deleted"
        case run.RunCleanupEnded():
            left = f", {payload.remaining_count} stay" if payload.remaining_count else ""
            gone = f", {payload.gone_count} more are gone, nobody knows by whom" if payload.gone_count else ""
            return _WARN, f"{payload.file_count} local files of {payload.byte_count} bytes were deleted{gone}{left}"
        case _:
            return None
