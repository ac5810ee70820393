"""Queues a run for each of its destinations, if the gate lets it through (SPEC §3 gate, §4 enqueue)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from labferry.events.v1 import job_events_pb2, run_events_pb2
from libs.event_log.event import RecordedEvent
from libs.event_log.store import RequestKey
from libs.event_log.uuid7 import Uuid7Source
from libs.run_tree.creation_record import SyncStatus
from services.sync_engine.engine_log import (
    BY_ITSELF,
    Cause,
    Change,
    decided_anew,
    job_change,
    new_job_change,
    run_change,
)
from services.sync_engine.errors import SourceUnreadableError
from services.sync_engine.event_types import EVENT_TYPES
from services.sync_engine.jobs.acceptances import unspent
from services.sync_engine.jobs.amendment import lists_of_deletions, proven_bases
from services.sync_engine.jobs.file_list import read_copied
from services.sync_engine.jobs.job import PROVEN_STATES, Job, JobState
from services.sync_engine.jobs.read_model import latest_by_destination
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.creation_keeper import CreationKeeper
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.runs.run import RunRecord, status_after_refusal, status_by_jobs, status_change
from services.sync_engine.runs.verified_tree import (
    ChangedFile,
    ChangesSince,
    RefusedChange,
    changed_file_finding,
    what_changed_since,
)
from services.sync_engine.transfer.destination import Destination
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
    """What became of the wish; one job a destination, in the order of the configuration; none when blocked. `changes`
    are those of verified files among what is blocking."""

    outcome: EnqueueOutcome
    jobs: Sequence[Job] = ()
    blocking: Sequence[Finding] = ()
    changes: Sequence[RefusedChange] = ()


@dataclass(frozen=True, slots=True)
class _Plan:
    """For one destination: the change to append, if any. `unsyncs`: the run is no longer all there with it."""

    outcome: EnqueueOutcome
    job_id: str
    change: Change | None
    unsyncs: bool = False


class Enqueue:
    """The command. Idempotent by itself, and by request id."""

    def __init__(self, bench: Workbench, keeper: CreationKeeper) -> None:
        self._bench = bench
        self._keeper = keeper
        self._ids = Uuid7Source()

    async def run(self, run: str, cause: Cause, request: RequestKey | None) -> Enqueued:
        """Errors: those of the run's place and of its creation.json, and the log's."""
        bench = self._bench
        if request is not None:
            earlier = await bench.log.store.find_request(request)
            if earlier is not None:
                return await self._first_answer(earlier.events)
        # A job may move, or somebody else queue the run, at the same moment.
        return await decided_anew(lambda: self._try(run, cause, request))

    async def _try(self, run: str, cause: Cause, request: RequestKey | None) -> Enqueued:
        bench = self._bench
        view = await bench.gate.look(run, bench.clock())
        located = view.located
        if not view.is_open:
            return await self._refuse(view, view.blocking, cause)
        jobs_so_far = await bench.jobs_of_run(located.identity)
        if view.creation.sync_status is SyncStatus.CLEANED and not any(job.deletion_begun for job in jobs_so_far):
            raise _cleaned_unbeknown(located)
        latest = latest_by_destination(jobs_so_far)
        destinations = bench.destinations[located.path.equipment_id]
        configured = {d.name for d in destinations}
        bases = {name: job for name, job in proven_bases(jobs_so_far).items() if name in configured}
        cleaned = bases.values() if view.run.sync_status is SyncStatus.CLEANED else ()
        deleted = {*lists_of_deletions(jobs_so_far), *(job.files_blob for job in cleaned if job.files_blob)}
        since = await self._since_proven(located, bases, sorted(deleted))
        refused = await self._refused_changes(view.run, bases, since)
        if refused:
            findings = in_order(changed_file_finding(located, change) for change in refused)
            return await self._refuse(view, findings, cause, refused)
        if any(job.deletion_begun for job in jobs_so_far):
            anew = [d.name for d in destinations if d.name not in bases and _begins_anew(latest.get(d.name))]
            _refuse_whole_copies(located, anew)
        plans = [self._plan(located, d, latest.get(d.name), bases.get(d.name), since.get(d.name)) for d in destinations]
        if any(p.change is not None for p in plans):
            await self._append(view.run, plans, cause, request)
            await self._keeper.project(located, view.creation)
        else:
            await self._heed_configuration(located, view, [latest.get(d.name) for d in destinations if d.required])
        jobs = [job for p in plans if (job := await bench.log.job(p.job_id)) is not None]
        return Enqueued(_overall([p.outcome for p in plans]), jobs)

    def _plan(
        self,
        located: LocatedRun,
        destination: Destination,
        job: Job | None,
        basis: Job | None,
        since: ChangesSince | None,
    ) -> _Plan:
        changed = since is not None and (since.added or since.changed)
        amended = basis if changed or _begins_anew(job) else None
        if job is None or job.state is JobState.CANCELLED or amended is not None:
            job_id = self._ids.next(time.time_ns())
            queued = job_events_pb2.JobQueued(
                job_id=job_id,
                run=located.identity,
                equipment_id=located.path.equipment_id,
                destination=destination.name,
                amendment=0 if amended is None or job is None else job.amendment + 1,
                amends_job_id="" if amended is None else amended.job_id,
            )
            unsyncs = amended is not None and destination.required
            return _Plan(EnqueueOutcome.QUEUED, job_id, new_job_change(queued), unsyncs)
        if job.state is JobState.FAILED:
            rearmed = job_events_pb2.JobRearmed(command="enqueue")
            return _Plan(EnqueueOutcome.REARMED, job.job_id, job_change(job, rearmed))
        if job.state in PROVEN_STATES:
            return _Plan(EnqueueOutcome.ALREADY_SYNCED, job.job_id, None)
        return _Plan(EnqueueOutcome.ALREADY_QUEUED, job.job_id, None)

    async def _append(
        self, record: RunRecord, plans: Sequence[_Plan], cause: Cause, request: RequestKey | None
    ) -> None:
        """Appends the jobs' events and the run's status together: a queued run is pending again."""
        pending = any(p.unsyncs for p in plans)
        status = status_change(record, SyncStatus.PENDING if pending else status_by_jobs(record, [None]))
        changes = [p.change for p in plans if p.change is not None]
        await self._bench.log.append(cause, *changes, run_change(record, *status), request=request)

    async def _heed_configuration(self, located: LocatedRun, view: GateView, required: Sequence[Job | None]) -> None:
        """A destination that is no longer configured, or no longer required, may be all that the run waited for: none
        of its jobs moves for that."""
        status = status_change(view.run, status_by_jobs(view.run, required))
        if status:
            await self._bench.log.append(BY_ITSELF, run_change(view.run, *status))
            await self._keeper.project(located, view.creation)

    async def _since_proven(
        self, located: LocatedRun, bases: Mapping[str, Job], deleted: Sequence[str]
    ) -> Mapping[str, ChangesSince]:
        """By destination: what became of the files that are proven there. `deleted`: blobs that list what a cleanup
        took, which is missing here for no copy's sake alone. TransferError when that can't be read."""
        since: dict[str, ChangesSince] = {}
        by_list: dict[str, ChangesSince] = {}
        for name, job in bases.items():
            if job.files_blob is None:
                continue
            if job.files_blob not in by_list:
                by_list[job.files_blob] = await self._compare(located, job.files_blob, deleted)
            since[name] = by_list[job.files_blob]
        return since

    async def _compare(self, located: LocatedRun, files_blob: str, deleted: Sequence[str]) -> ChangesSince:
        blobs = self._bench.blobs
        return await self._bench.threads.run(
            lambda: what_changed_since(
                located, read_copied(blobs, files_blob), cleaned=[read_copied(blobs, each) for each in deleted]
            )
        )

    async def _refused_changes(
        self, record: RunRecord, bases: Mapping[str, Job], since: Mapping[str, ChangesSince]
    ) -> Sequence[RefusedChange]:
        """Destinations may hold different contents of a file, each of which has to be accepted to be replaced."""
        at: dict[ChangedFile, list[str]] = {}
        for name, changes in since.items():
            for change in changes.refused(await unspent(self._bench.log, record, name, bases[name])):
                at.setdefault(change, []).append(name)
        by_path = sorted(at.items(), key=lambda each: each[0].path)
        return [RefusedChange(file, () if len(names) == len(since) else tuple(names)) for file, names in by_path]

    async def _refuse(
        self, view: GateView, blocking: Sequence[Finding], cause: Cause, changes: Sequence[RefusedChange] = ()
    ) -> Enqueued:
        refused = run_events_pb2.RunEnqueueBlocked(
            run=view.run.run,
            findings=[finding_message(f) for f in blocking[:_MOST_FINDINGS]],
            finding_count=len(blocking),
        )
        status = status_change(view.run, status_after_refusal(view.run))
        await self._bench.log.append(cause, run_change(view.run, refused, *status))
        await self._keeper.project(view.located, view.creation)
        return Enqueued(EnqueueOutcome.BLOCKED, blocking=blocking, changes=changes)

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


def _begins_anew(job: Job | None) -> bool:
    return job is None or job.state is JobState.CANCELLED


def _refuse_whole_copies(located: LocatedRun, names: Sequence[str]) -> None:
    """SourceUnreadableError: what is left here after a cleanup would be proven there as if it were the run."""
    if names:
        detail = f"cleanup deleted files of the run here; {', '.join(names)} could only get what is left"
        raise SourceUnreadableError(detail, metadata={"path": located.identity, "detail": detail})


def _cleaned_unbeknown(located: LocatedRun) -> SourceUnreadableError:
    """After a log was restored from a backup: what the cleanup left here would be proven as if it were the run."""
    detail = (
        "creation.json says that the run was cleaned, and this log knows of no cleanup: what is here may be what that"
        " left. Restore a later backup of the log; or, if every file of the run is here, set sync_status in"
        " creation.json to pending"
    )
    return SourceUnreadableError(detail, metadata={"path": located.identity, "detail": detail})


def _overall(outcomes: Sequence[EnqueueOutcome]) -> EnqueueOutcome:
    """The run's outcome from its destinations': what was set going counts most."""
    for outcome in (EnqueueOutcome.QUEUED, EnqueueOutcome.REARMED, EnqueueOutcome.ALREADY_QUEUED):
        if outcome in outcomes:
            return outcome
    return EnqueueOutcome.ALREADY_SYNCED
