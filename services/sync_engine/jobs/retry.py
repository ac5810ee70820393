"""What follows on a failed attempt, by the class of the failure (SPEC §4 retries). Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from google.protobuf.message import Message

from labferry.events.v1 import job_events_pb2 as events
from services.sync_engine.jobs.job import WAIT_CONDITIONS, Failure, Job, WaitCondition, failure_message
from services.sync_engine.transfer.transport import FailureKind

BACKOFF = (
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=8),
    timedelta(minutes=30),
    timedelta(hours=2),
)
"""Pauses after network-like failures; the failure after the last one ends the job."""

JITTER = 0.1
"""Pauses vary by up to this fraction, so that many jobs don't come back at the same moment."""

SETTLE = timedelta(seconds=30)
"""How long a run is left alone after one of its files changed while it was read."""

_PROBE_PAUSES = (timedelta(seconds=5), timedelta(seconds=15), timedelta(seconds=60), timedelta(minutes=5))
_FULL_PAUSE = timedelta(minutes=1)
GATE_PAUSE = timedelta(seconds=30)
"""A closed gate opens without an event when somebody renames the offending file: it is looked at again this often."""

SEAL_PAUSE = timedelta(minutes=1)
"""Proven data whose sealing failed is sealed again after this long, until it succeeds."""


def probe_pause(waited: timedelta) -> timedelta:
    """Pause before an unreachable destination is probed again: grows with how long it has been away."""
    for pause in _PROBE_PAUSES:
        if waited < pause * 4:
            return pause
    return _PROBE_PAUSES[-1]


def after_failure(job: Job, failure: Failure, now: datetime, jitter: float) -> Message:
    """The event that follows on a failed attempt. `jitter` lies in -1 … 1."""
    match failure.kind:
        case FailureKind.NETWORK:
            if job.network_failures >= len(BACKOFF):
                return failed(failure)
            pause = BACKOFF[job.network_failures] * (1 + JITTER * jitter)
            return _again(failure, now + pause)
        case FailureKind.HASH_MISMATCH:
            return _again(failure, now) if job.mismatches <= 1 else failed(failure)
        case FailureKind.DESTINATION_FULL:
            return waiting(WaitCondition.DESTINATION_FULL, failure.message, now + _FULL_PAUSE, failure)
        case FailureKind.SOURCE_CHANGED:
            return waiting(WaitCondition.SOURCE_UNSETTLED, failure.message, now + SETTLE, failure)
        case _:
            return failed(failure)


def unreachable(job: Job, failure: Failure, now: datetime) -> events.JobWaiting:
    """The destination fails its own probe: the job waits and no attempt is burned."""
    waited = timedelta(0)
    if job.wait is not None and job.wait.condition is WaitCondition.DESTINATION_UNREACHABLE:
        waited = max(waited, now - job.wait.since)
    return waiting(WaitCondition.DESTINATION_UNREACHABLE, failure.message, now + probe_pause(waited), failure)


def failed(failure: Failure) -> events.JobFailed:
    return events.JobFailed(failure=failure_message(failure))


def waiting(
    condition: WaitCondition, detail: str, next_try: datetime | None, failure: Failure | None = None
) -> events.JobWaiting:
    event = events.JobWaiting(condition=WAIT_CONDITIONS.to_proto(condition), detail=detail)
    if next_try is not None:
        event.next_try_time.FromDatetime(next_try)
    if failure is not None:
        event.failure.CopyFrom(failure_message(failure))
    return event


def _again(failure: Failure, at: datetime) -> events.JobAttemptFailed:
    event = events.JobAttemptFailed(failure=failure_message(failure))
    event.next_attempt_time.FromDatetime(at)
    return event
