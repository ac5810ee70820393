"""What operators and the engine may ask of a job, and the events that follow: decided by its present state. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from google.protobuf.message import Message

from labferry.events.v1 import job_events_pb2 as events
from labferry.sync.v1 import sync_service_pb2
from libs.service_kit.enum_names import ProtoNames
from services.sync_engine.jobs.job import ENDED_STATES, UNPROVEN_STATES, Job, JobState, JobStateError

MOST_PRIORITY = 1000


class JobCommand(StrEnum):
    RETRY = "retry"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    SET_PRIORITY = "set_priority"


JOB_COMMANDS = ProtoNames(JobCommand, sync_service_pb2.JobCommand, "JOB_COMMAND")

ALLOWED_IN: dict[JobCommand, frozenset[JobState]] = {
    JobCommand.RETRY: frozenset({JobState.FAILED}),
    JobCommand.PAUSE: UNPROVEN_STATES,
    JobCommand.RESUME: frozenset({JobState.PAUSED}),
    JobCommand.CANCEL: UNPROVEN_STATES | {JobState.PAUSED, JobState.FAILED},
    JobCommand.SET_PRIORITY: frozenset(JobState) - ENDED_STATES,
}
"""SPEC §4: a job is cancelled or paused only before it is verified."""


def decide(job: Job, command: JobCommand, priority: int = 0) -> Sequence[Message]:
    """The events of an operator's command. JobStateError when the job's state doesn't allow it."""
    if job.state not in ALLOWED_IN[command]:
        raise JobStateError(job, command.value)
    match command:
        case JobCommand.RETRY:
            return (events.JobRearmed(command="retry"),)
        case JobCommand.PAUSE:
            return (events.JobPaused(),)
        case JobCommand.RESUME:
            return (events.JobResumed(),)
        case JobCommand.CANCEL:
            return (events.JobCancelled(),)
        case JobCommand.SET_PRIORITY:
            if priority == job.priority:
                return ()
            return (events.JobPriorityChanged(previous=job.priority, priority=priority),)


def decide_start(job: Job, engine_id: str) -> events.JobStarted:
    """The next attempt begins. JobStateError unless the job is queued."""
    if job.state is not JobState.QUEUED:
        raise JobStateError(job, "start")
    attempt = job.attempt + 1
    return events.JobStarted(attempt=attempt, engine_id=engine_id, incoming_folder=f"{job.job_id}-{attempt}")
