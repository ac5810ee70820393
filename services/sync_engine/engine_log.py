"""The engine's side of its event log: streams folded into jobs and runs, and appends that carry who asked and why."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.message import Message

from labferry.events.v1.job_events_pb2 import JobQueued
from libs.event_log.event import NewEvent, RecordedEvent
from libs.event_log.store import (
    AppendResult,
    EventStore,
    Expected,
    LeaseFence,
    RequestKey,
    RevisionConflictError,
    StreamAppend,
)
from services.sync_engine.event_types import ENGINE, EVENT_TYPES, job_stream, run_stream, staged_stream
from services.sync_engine.folded_streams import FoldedStreams
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.job_history import JobHistoryError
from services.sync_engine.jobs.job_history import evolve as evolve_job
from services.sync_engine.runs.run import RunRecord
from services.sync_engine.runs.run import evolve as evolve_run
from services.sync_engine.staging.staged_run import StagedRun
from services.sync_engine.staging.staged_run import evolve as evolve_staged

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cause:
    """Who asked, why, and in which request. `reason` is empty where good records ask for none. `on_behalf_of`: for
    whom the caller says that it acts."""

    actor: str
    reason: str = ""
    correlation_id: str = ""
    on_behalf_of: str = ""


BY_ITSELF = Cause(actor=ENGINE)
"""What the engine does without being asked."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be appended to one stream, and the revision it is based on.

    `decided_on`: the job, run or staged run as it was at that revision; None: the stream tells of nothing yet, or of
    nothing that later events could contradict.
    """

    stream: str
    expected: int | Expected
    payloads: Sequence[Message]
    decided_on: Job | RunRecord | StagedRun | None = None


def job_change(job: Job, *payloads: Message) -> Change:
    return Change(job_stream(job.job_id), job.revision, payloads, job)


def new_job_change(queued: JobQueued) -> Change:
    return Change(job_stream(queued.job_id), Expected.NONE, (queued,))


def run_change(record: RunRecord, *payloads: Message) -> Change:
    return Change(run_stream(record.run), _expected(record.revision), payloads, record)


def staged_change(record: StagedRun, *payloads: Message) -> Change:
    return Change(staged_stream(record.run), _expected(record.revision), payloads, record)


def _expected(revision: int) -> int | Expected:
    return revision if revision >= 0 else Expected.NONE


def recorded_at(event: RecordedEvent) -> datetime:
    """When it was recorded, to the microsecond."""
    return datetime.fromtimestamp(event.recorded_ns // 1000 / 1_000_000, tz=UTC)


_CONFLICTS = 20


async def decided_anew(attempt: Callable[[], Awaitable[T]]) -> T:
    """What `attempt` gives, begun again from what is true then whenever somebody else appended in between.

    RevisionConflictError when that happens again and again.
    """
    for _ in range(_CONFLICTS):
        try:
            return await attempt()
        except RevisionConflictError:
            continue
    return await attempt()


class EngineLog:
    """Loads jobs and runs as they are now, or were at a position, and appends what happened to them."""

    def __init__(self, store: EventStore, *, shared: bool = False) -> None:
        """`shared`: other processes append to this log too."""
        self.store = store
        self._shared = shared
        self._jobs = FoldedStreams[Job](lambda job: job.revision, _evolved_job)
        self._runs = FoldedStreams[RunRecord](lambda run: run.revision, _evolved_run)

    async def job(self, job_id: str, *, upto_position: int | None = None) -> Job | None:
        """The job; None when there was none yet."""
        stream = job_stream(job_id)
        if upto_position is not None:
            return fold_job(await self.store.read_stream(stream, upto_position=upto_position))
        known = self._jobs.get(stream)
        if known is not None:
            return known
        with self._jobs.reading(stream) as mark:
            job = fold_job(await self.store.read_stream(stream))
            if job is not None and mark.clean and not self._shared:
                self._jobs.keep(stream, job)
        return job

    async def run(self, run: str, *, upto_position: int | None = None) -> RunRecord:
        """What the log knows about a run; an empty record when it knows nothing."""
        stream = run_stream(run)
        if upto_position is not None:
            return fold_run(run, await self.store.read_stream(stream, upto_position=upto_position))
        known = self._runs.get(stream)
        if known is not None:
            return known
        with self._runs.reading(stream) as mark:
            record = fold_run(run, await self.store.read_stream(stream))
            if mark.clean and not self._shared:
                self._runs.keep(stream, record)
        return record

    async def append(
        self, cause: Cause, *changes: Change, request: RequestKey | None = None, fence: LeaseFence | None = None
    ) -> AppendResult:
        """Appends all changes or none. Errors: libs.event_log.store; ContradictionError, and the log isn't asked, when
        one of them can't follow on what it was decided on."""
        for change in changes:
            refuse_contradiction(change)
        appends = [
            StreamAppend(c.stream, c.expected, [_new_event(p, cause) for p in c.payloads])
            for c in changes
            if c.payloads
        ]
        streams = [a.stream for a in appends]
        with self._jobs.appending(streams), self._runs.appending(streams):
            result = await self.store.append(appends, request, fence)
        if not result.repeated:
            self._jobs.appended(result.events)
            self._runs.appended(result.events)
        return result

    async def append_to_job(self, cause: Cause, job: Job, *payloads: Message, fence: LeaseFence | None = None) -> Job:
        """Appends to one job and returns it as it is then."""
        result = await self.append(cause, job_change(job, *payloads), fence=fence)
        for event, payload in zip(result.events, payloads, strict=True):
            job = evolve_job(job, payload, recorded_at(event), event.actor, event.reason)
        return job


class ContradictionError(Exception):
    """What was to be recorded can't follow on what was recorded before. A defect, and of one call: a log that holds
    such an event could never be replayed."""


_WHENEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""Whether an event can follow doesn't depend on when it is recorded."""

_OF_JOBS, _OF_RUNS, _OF_STAGED = job_stream(""), run_stream(""), staged_stream("")
_ORDERED = (_OF_JOBS, _OF_STAGED)
"""Streams in which it depends on the events before. Those of a run may come in any order."""


def refuse_contradiction(change: Change) -> None:
    """Replays a change on what it was decided on; whether that is still so, the store looks by the expected revision.
    ContradictionError."""
    known = change.decided_on or _nothing_yet(change.stream)
    revision = -1 if known is None else known.revision
    if change.stream.startswith(_ORDERED) and change.expected != _expected(revision):
        raise ContradictionError(f"{change.stream}: decided on revision {revision}, to follow on {change.expected}")
    try:
        for payload in change.payloads:
            match known:
                case RunRecord():
                    known = evolve_run(known, payload)
                case StagedRun():
                    known = evolve_staged(known, payload, _WHENEVER)
                case _ if change.stream.startswith(_OF_JOBS):
                    known = evolve_job(known, payload, _WHENEVER)
    except (JobHistoryError, ValueError, KeyError, OverflowError) as error:
        raise ContradictionError(f"{change.stream}: {error}") from error
    if isinstance(known, Job) and job_stream(known.job_id) != change.stream:
        raise ContradictionError(f"{change.stream} can't tell of job {known.job_id}")


def _nothing_yet(stream: str) -> RunRecord | StagedRun | None:
    if stream.startswith(_OF_RUNS):
        return RunRecord(stream.removeprefix(_OF_RUNS))
    if stream.startswith(_OF_STAGED):
        return StagedRun(stream.removeprefix(_OF_STAGED))
    return None


def fold_job(events: Sequence[RecordedEvent]) -> Job | None:
    """The job that these events of its stream make."""
    job: Job | None = None
    for event in events:
        payload = EVENT_TYPES.decode(event)
        if payload is not None:
            job = evolve_job(job, payload, recorded_at(event), event.actor, event.reason)
    return job


def _new_event(payload: Message, cause: Cause) -> NewEvent:
    return EVENT_TYPES.new_event(
        payload,
        actor=cause.actor,
        reason=cause.reason,
        correlation_id=cause.correlation_id,
        on_behalf_of=cause.on_behalf_of,
    )


def fold_run(run: str, events: Sequence[RecordedEvent]) -> RunRecord:
    """What these events of its stream make of a run."""
    record = RunRecord(run)
    for event in events:
        record = _evolved_run(record, event)
    return record


def _evolved_job(job: Job, event: RecordedEvent) -> Job:
    payload = EVENT_TYPES.decode(event)
    return job if payload is None else evolve_job(job, payload, recorded_at(event), event.actor, event.reason)


def _evolved_run(record: RunRecord, event: RecordedEvent) -> RunRecord:
    payload = EVENT_TYPES.decode(event)
    return record if payload is None else evolve_run(record, payload)
