"""Queues a run for each of its destinations, if the gate lets it through (SPEC §3 gate, §4 enqueue)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from labferry.events.v1 import job_events_pb2, run_events_pb2
from libs.event_log.event import RecordedEvent
from libs.event_log.store import Expected, RequestKey
from libs.event_log.uuid7 import Uuid7Source
from services.sync_engine.engine_log import Cause, Change, decided_anew, job_change, run_change
from services.sync_engine.errors import RunAmendedError
from services.sync_engine.event_types import EVENT_TYPES, job_stream
from services.sync_engine.jobs.file_list import decode_copied
from services.sync_engine.jobs.job import PROVEN_STATES, Job, JobState
from services.sync_engine.jobs.read_model import latest_by_destination
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.creation_keeper import CreationKeeper
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.runs.run import RunRecord, status_after_refusal, status_by_jobs, status_change
from services.sync_engine.runs.verified_tree import what_changed_since
from services.sync_engine.validation.finding import Finding, in_order
from services.sync_engine.validation.finding_messages import finding_message
from services.sync_engine.validation.presync_gate import GateView

_MOST_FINDINGS = 100


class EnqueueOutcome(StrEnum):
    QUEUED = "queued"
    ALREADY_QUEUED = "already_queued"
    ALREADY_SYNCED = "already_synced"
    REARMED = "rearmed"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What became of the wish; one job a destination, in the order of the configuration; none when blocked."""

    outcome: EnqueueOutcome
    jobs: Sequence[Job] = ()
    blocking: Sequence[Finding] = ()


@dataclass(frozen=True, slots=True)
class _Plan:
    """For one destination: the change to append, if any."""

    outcome: EnqueueOutcome
    job_id: str
    change: Change | None


class Enqueue:
    """The command. Idempotent by itself, and by request id."""

    def __init__(self, bench: Workbench, keeper: CreationKeeper) -> None:
        self._bench = bench
        self._keeper = keeper
        self._ids = Uuid7Source()

    async def run(self, run: str, cause: Cause, request: RequestKey | None) -> Enqueued:
        """Errors: those of the run's place and of its creation.json, RunAmendedError, and the log's."""
        bench = self._bench
        if request is not None:
            earlier = await bench.log.store.find_request(request)
            if earlier is not None:
                return await self._first_answer(earlier.events)
        located = await bench.locate(run)
        # A job may move, or somebody else queue the run, at the same moment.
        return await decided_anew(lambda: self._try(located, cause, request))

    async def _try(self, located: LocatedRun, cause: Cause, request: RequestKey | None) -> Enqueued:
        bench = self._bench
        view = await bench.gate.look(located, bench.clock())
        if not view.is_open:
            return await self._refuse(located, view, view.blocking, cause)
        latest = latest_by_destination(await bench.jobs_of_run(located.identity))
        changed = await self._changed_since_proven(located, list(latest.values()))
        if changed:
            return await self._refuse(located, view, changed, cause)
        plans = [self._plan(located, d.name, latest.get(d.name)) for d in bench.destinations[located.path.equipment_id]]
        changes = [p.change for p in plans if p.change is not None]
        if changes:
            await self._append(view.run, changes, cause, request)
            await self._keeper.project(located)
        jobs = [job for p in plans if (job := await bench.log.job(p.job_id)) is not None]
        return Enqueued(_overall([p.outcome for p in plans]), jobs)

    def _plan(self, located: LocatedRun, destination: str, job: Job | None) -> _Plan:
        if job is None or job.state is JobState.CANCELLED:
            job_id = self._ids.next(time.time_ns())
            queued = job_events_pb2.JobQueued(
                job_id=job_id,
                run=located.identity,
                equipment_id=located.path.equipment_id,
                destination=destination,
            )
            return _Plan(EnqueueOutcome.QUEUED, job_id, Change(job_stream(job_id), Expected.NONE, (queued,)))
        if job.state is JobState.FAILED:
            rearmed = job_events_pb2.JobRearmed(command="enqueue")
            return _Plan(EnqueueOutcome.REARMED, job.job_id, job_change(job, rearmed))
        if job.state in PROVEN_STATES:
            return _Plan(EnqueueOutcome.ALREADY_SYNCED, job.job_id, None)
        return _Plan(EnqueueOutcome.ALREADY_QUEUED, job.job_id, None)

    async def _append(
        self, record: RunRecord, changes: Sequence[Change], cause: Cause, request: RequestKey | None
    ) -> None:
        """Appends the jobs' events and the run's status together: a queued run is pending again."""
        status = status_change(record, status_by_jobs(record, [None]))
        await self._bench.log.append(cause, *changes, run_change(record, *status), request=request)

    async def _changed_since_proven(self, located: LocatedRun, jobs: Sequence[Job]) -> Sequence[Finding]:
        """`verified_file_changed` findings. RunAmendedError when files were added since a job proved the run."""
        findings: dict[str, Finding] = {}
        for job in jobs:
            if job.state not in (JobState.VERIFIED, JobState.CLEANUP_ELIGIBLE) or job.files_blob is None:
                continue
            proven = decode_copied(await self._bench.blobs.read(job.files_blob))
            tree = await asyncio.to_thread(what_changed_since, located, proven)
            findings.update({f.offending_path: f for f in tree.findings})
            if tree.added and not findings:
                raise RunAmendedError(
                    f"{len(tree.added)} files were added since {located.identity} was verified, the first of them"
                    f" {tree.added[0]!r}; amendments are not served by this release",
                    metadata={"run": located.identity},
                )
        return in_order(findings.values())

    async def _refuse(self, located: LocatedRun, view: GateView, blocking: Sequence[Finding], cause: Cause) -> Enqueued:
        refused = run_events_pb2.RunEnqueueBlocked(
            run=located.identity,
            findings=[finding_message(f) for f in blocking[:_MOST_FINDINGS]],
            finding_count=len(blocking),
        )
        status = status_change(view.run, status_after_refusal(view.run))
        await self._bench.log.append(cause, run_change(view.run, refused, *status))
        await self._keeper.project(located)
        return Enqueued(EnqueueOutcome.BLOCKED, blocking=blocking)

    async def _first_answer(self, events: Sequence[RecordedEvent]) -> Enqueued:
        """The answer that the request got the first time, rebuilt from what it recorded."""
        last = events[-1].position
        jobs, rearmed = [], True
        for event in events:
            payload = EVENT_TYPES.decode(event)
            if isinstance(payload, job_events_pb2.JobQueued | job_events_pb2.JobRearmed):
                rearmed = rearmed and isinstance(payload, job_events_pb2.JobRearmed)
                job = await self._bench.log.job(event.stream.removeprefix("job-"), upto_position=last)
                if job is not None:
                    jobs.append(job)
        return Enqueued(EnqueueOutcome.REARMED if rearmed else EnqueueOutcome.QUEUED, jobs)


def _overall(outcomes: Sequence[EnqueueOutcome]) -> EnqueueOutcome:
    """The run's outcome from its destinations': what was set going counts most."""
    for outcome in (EnqueueOutcome.QUEUED, EnqueueOutcome.REARMED, EnqueueOutcome.ALREADY_QUEUED):
        if outcome in outcomes:
            return outcome
    return EnqueueOutcome.ALREADY_SYNCED
