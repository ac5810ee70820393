"""What follows on a failed attempt, by the class of the failure (SPEC §4 retries). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from google.protobuf.message import Message

from labferry.events.v1 import job_events_pb2 as events
from services.sync_engine.jobs.failure import Failure, failure_message
from services.sync_engine.jobs.job import WAIT_CONDITIONS, Job, WaitCondition
from services.sync_engine.jobs.job_history import mismatches_with
from services.sync_engine.transfer.transport import FailureKind

BACKOFF = (
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=8),
    timedelta(minutes=30),
    timedelta(hours=2),
)
"""Pauses after network-like failures; the failure after the last one ends the job."""

TOOL_BACKOFF = BACKOFF[:2]
"""Pauses after a tool ended in a way that seldom mends by itself; the failure after the last one ends the job."""

JITTER = 0.1
"""Pauses vary by up to this fraction, so that many jobs don't come back at the same moment."""

SETTLE = timedelta(seconds=30)
"""How long a run is left alone after one of its files changed while it was read."""

_PROBE_PAUSES = (timedelta(seconds=5), timedelta(seconds=15), timedelta(seconds=60), timedelta(minutes=5))
_FULL_PAUSES = (timedelta(minutes=1), timedelta(minutes=2), timedelta(minutes=10))
_ROOM_PAUSES = (timedelta(seconds=5), timedelta(seconds=30), timedelta(minutes=5))
# The secrets service says itself when it is opened; this is for what else may mend.
_SECRET_PAUSES = (timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=10))
GATE_PAUSE = timedelta(seconds=30)
"""A closed gate opens without an event when somebody renames the offending file: it is looked at again this often."""

SOURCE_PAUSE = timedelta(seconds=30)
"""No event tells that a file system is mounted here again: an equipment's folder is looked for again this often."""

ANOTHERS_PAUSE = timedelta(seconds=10)
"""A job that another engine works on is looked at again after this long, in case that engine died."""

SWEEP_PAUSE = timedelta(minutes=5)
"""Temporary files of a cancelled job that could not be removed are looked at again after this long."""

SEAL_PAUSE = timedelta(minutes=1)
"""Proven data whose sealing failed is sealed again after this long, until it succeeds."""


def probe_pause(waited: timedelta) -> timedelta:
    """Pause before an unreachable destination is probed again: grows with how long it has been away."""
    return _growing(_PROBE_PAUSES, waited)


def _growing(pauses: Sequence[timedelta], waited: timedelta) -> timedelta:
    return next((pause for pause in pauses if waited < pause * 4), pauses[-1])


def remaining(job: Job, now: datetime) -> float:
    """Seconds until the job's own record lets it go on; 0 when it may now.

    Never longer than the pause was when it was set: a clock that was set back makes no wait longer.
    """
    due, pause = job.next_attempt, job.backoff
    if due is None and job.wait is not None:
        due, pause = job.wait.next_try, job.wait.pause
    if due is None:
        return 0.0
    left = max(timedelta(0), due - now)
    return (left if pause is None else min(left, pause)).total_seconds()


def waits_for_room(job: Job, now: datetime) -> events.JobWaiting:
    """The event of a step that found no room for the engine's own files."""
    pause = _growing(_ROOM_PAUSES, _waited(job, WaitCondition.STATE_DISK_FULL, now))
    return waiting(WaitCondition.STATE_DISK_FULL, "the disk of the engine's own files is full", now, now + pause)


def after_failure(job: Job, failure: Failure, now: datetime, jitter: float) -> Message:
    """The event that follows on a failed attempt. `jitter` lies in -1 … 1."""
    match failure.kind:
        case FailureKind.NETWORK:
            return _after_pause(BACKOFF, job.network_failures, failure, now, jitter)
        case FailureKind.TOOL_FAILED:
            return _after_pause(TOOL_BACKOFF, job.tool_failures, failure, now, jitter)
        case FailureKind.HASH_MISMATCH:
            return _again(failure, now, timedelta(0)) if mismatches_with(job, failure) <= 1 else failed(failure)
        case FailureKind.DESTINATION_FULL:
            pause = _growing(_FULL_PAUSES, _waited(job, WaitCondition.DESTINATION_FULL, now))
            return waiting(WaitCondition.DESTINATION_FULL, failure.message, now, now + pause, failure)
        case FailureKind.SECRET_UNAVAILABLE:
            pause = _growing(_SECRET_PAUSES, _waited(job, WaitCondition.SECRETS_UNAVAILABLE, now))
            return waiting(WaitCondition.SECRETS_UNAVAILABLE, failure.message, now, now + pause, failure)
        case FailureKind.SOURCE_CHANGED:
            return waiting(WaitCondition.SOURCE_UNSETTLED, failure.message, now, now + SETTLE, failure)
        case _:
            return failed(failure)


def _after_pause(
    pauses: Sequence[timedelta], failures: int, failure: Failure, now: datetime, jitter: float
) -> events.JobAttemptFailed | events.JobFailed:
    if failures >= len(pauses):
        return failed(failure)
    return _again(failure, now, pauses[failures] * (1 + JITTER * jitter))


def _waited(job: Job, condition: WaitCondition, now: datetime) -> timedelta:
    if job.wait is None or job.wait.condition is not condition:
        return timedelta(0)
    return max(timedelta(0), now - job.wait.since)


def unreachable(failure: Failure) -> events.JobWaiting:
    """The destination fails its own probe: the job waits and no attempt is burned."""
    return events.JobWaiting(
        condition=WAIT_CONDITIONS.to_proto(WaitCondition.DESTINATION_UNREACHABLE),
        detail=failure.message,
        failure=failure_message(failure),
    )


def failed(failure: Failure) -> events.JobFailed:
    return events.JobFailed(failure=failure_message(failure))


def waiting(
    condition: WaitCondition, detail: str, now: datetime, next_try: datetime | None, failure: Failure | None = None
) -> events.JobWaiting:
    event = events.JobWaiting(condition=WAIT_CONDITIONS.to_proto(condition), detail=detail)
    if next_try is not None:
        event.next_try_time.FromDatetime(next_try)
        event.pause.FromTimedelta(max(timedelta(0), next_try - now))
    if failure is not None:
        event.failure.CopyFrom(failure_message(failure))
    return event


def _again(failure: Failure, now: datetime, pause: timedelta) -> events.JobAttemptFailed:
    event = events.JobAttemptFailed(failure=failure_message(failure))
    event.next_attempt_time.FromDatetime(now + pause)
    event.pause.FromTimedelta(pause)
    return event
