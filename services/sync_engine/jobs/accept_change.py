"""AcceptChange: an operator lets one file's copy at a destination be superseded, bound to both contents (SPEC §4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labferry.events.v1 import job_events_pb2, run_events_pb2
from libs.event_log.event import RecordedEvent
from libs.event_log.store import RequestKey
from libs.service_kit.errors import FieldViolation, InvalidRequestError
from services.sync_engine.engine_log import Cause, decided_anew, job_change, run_change
from services.sync_engine.errors import NoSuchChangeError, no_destination
from services.sync_engine.jobs.acceptances import unspent
from services.sync_engine.jobs.file_list import read_copied
from services.sync_engine.jobs.job import PROVEN_STATES, Job, JobState
from services.sync_engine.jobs.read_model import latest_by_destination
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.run import AcceptedChange, RunRecord, status_by_jobs, status_change
from services.sync_engine.transfer.transport import DifferingFile, EntryKind, FailureKind, bytes_unless_text


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What is accepted, and by whom."""

    run: str
    change: AcceptedChange
    operator: str


class AcceptChange:
    """The command. Failed jobs are armed again with the last file that stopped them."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def accept(self, acceptance: Acceptance, cause: Cause, request: RequestKey | None) -> Sequence[Job]:
        """The jobs that were armed again. DestinationNotFoundError; InvalidRequestError when nothing changed;
        NoSuchChangeError when no destination of the run is known to hold the old content in the place of the new
        one."""
        bench = self._bench
        if request is not None:
            earlier = await bench.log.store.find_request(request)
            if earlier is not None:
                return await self._armed_by(earlier.events)
        path = bench.locator.parse(acceptance.run)
        bench.locator.equipment(path.equipment_id)
        names = {d.name for d in bench.destinations[path.equipment_id]}
        wanted = acceptance.change.destination
        if wanted and wanted not in names:
            raise no_destination(path.equipment_id, wanted)
        return await decided_anew(lambda: self._try(acceptance, cause, request))

    async def _try(self, acceptance: Acceptance, cause: Cause, request: RequestKey | None) -> Sequence[Job]:
        bench, change = self._bench, acceptance.change
        all_jobs = await bench.jobs_of_run(acceptance.run)
        jobs = [job for job in all_jobs if change.destination in ("", job.destination)]
        path = change.path.decode(errors="replace")
        if change.new_sha256 == change.old_sha256 and not [job for job in jobs if await self._proved_link(job, change)]:
            raise InvalidRequestError(FieldViolation("new_sha256", "equals old_sha256: nothing changed"))
        if not change.new_sha256 and [job for job in all_jobs if job.deletion_begun and await self._lists(job, change)]:
            raise NoSuchChangeError(
                f"{path} is among what a cleanup began to delete here: that it is missing is no change, and what the"
                " destination holds is the run's",
                metadata={"run": acceptance.run, "path": path},
            )
        stopped = [job for job in latest_by_destination(jobs).values() if _was_stopped_by(job, change)]
        if not stopped and not [job for job in jobs if await self._proved(job, change)]:
            raise NoSuchChangeError(
                f"no destination of {acceptance.run} is known to hold {change.old_sha256} as"
                f" {path} in the place of what is to be accepted",
                metadata={"run": acceptance.run, "path": path},
            )
        record = await bench.log.run(acceptance.run)
        accepted = run_events_pb2.RunChangeAccepted(
            run=acceptance.run,
            destination=change.destination,
            path=path,
            path_bytes=bytes_unless_text(change.path),
            old_sha256=change.old_sha256,
            new_sha256=change.new_sha256,
            operator=acceptance.operator,
        )
        # Armed with the first of many, it would fail again of the others before they can be accepted.
        ready = [job for job in stopped if _all_accepted(job, (*await self._unspent(record, job), change))]
        status = status_change(record, status_by_jobs(record, [None])) if ready else ()
        rearmed = [job_change(job, job_events_pb2.JobRearmed(command="accept_change")) for job in ready]
        result = await bench.log.append(cause, run_change(record, accepted, *status), *rearmed, request=request)
        return await self._armed_by(result.events)

    async def _unspent(self, record: RunRecord, job: Job) -> Sequence[AcceptedChange]:
        """What the job's next attempt will heed."""
        log = self._bench.log
        amended = await log.job(job.amends_job_id) if job.amends_job_id else None
        return await unspent(log, record, job.destination, amended)

    async def _proved(self, job: Job, change: AcceptedChange) -> bool:
        return job.state in PROVEN_STATES and await self._lists(job, change)

    async def _proved_link(self, job: Job, change: AcceptedChange) -> bool:
        """Whether it proved a symlink there: a file may come in its place that holds the text of its target."""
        return job.state in PROVEN_STATES and await self._kind_listed(job, change) is EntryKind.SYMLINK

    async def _lists(self, job: Job, change: AcceptedChange) -> bool:
        return await self._kind_listed(job, change) is not None

    async def _kind_listed(self, job: Job, change: AcceptedChange) -> EntryKind | None:
        """Of what the job brought as exactly this path with exactly the old content."""
        if job.files_blob is None:
            return None
        blobs, files_blob, wanted = self._bench.blobs, job.files_blob, (change.path, change.old_sha256)
        return await self._bench.threads.run(
            lambda: next((f.kind for f in read_copied(blobs, files_blob) if (f.path, f.sha256) == wanted), None)
        )

    async def _armed_by(self, recorded: Sequence[RecordedEvent]) -> Sequence[Job]:
        last = recorded[-1].position
        ids = [e.stream.removeprefix("job-") for e in recorded if e.stream.startswith("job-")]
        jobs = [await self._bench.log.job(job_id, upto_position=last) for job_id in ids]
        return [job for job in jobs if job is not None]


def _was_stopped_by(job: Job, change: AcceptedChange) -> bool:
    if job.state is not JobState.FAILED or job.failure is None:
        return False
    met = DifferingFile(change.path, change.old_sha256, change.new_sha256)
    return job.failure.kind is FailureKind.DESTINATION_FILE_DIFFERS and met in job.failure.differing


def _all_accepted(job: Job, accepted: Sequence[AcceptedChange]) -> bool:
    known = {DifferingFile(change.path, change.old_sha256, change.new_sha256) for change in accepted}
    return job.failure is not None and known.issuperset(job.failure.differing)
