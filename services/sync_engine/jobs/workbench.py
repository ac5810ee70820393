"""What every step of a job works with: the log, the run on disk, the destination, and the way to record an outcome."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from google.protobuf.message import Message

from libs.event_log.blob_store import BlobStore
from libs.event_log.store import RevisionConflictError
from libs.service_kit.boot_clock import boot_seconds
from libs.service_kit.telemetry import Logger
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.engine_log import BY_ITSELF, EngineLog, job_change, run_change
from services.sync_engine.event_types import job_stream, run_stream
from services.sync_engine.jobs.destination_watch import DestinationWatch
from services.sync_engine.jobs.failure import Failure, failure_of_transfer
from services.sync_engine.jobs.job import PROVEN_STATES, Job, JobState, WaitCondition
from services.sync_engine.jobs.job_history import evolve
from services.sync_engine.jobs.ownership import Ownership
from services.sync_engine.jobs.progress import ProgressBoard
from services.sync_engine.jobs.read_model import latest_by_destination
from services.sync_engine.jobs.retry import SEAL_PAUSE, after_failure, unreachable, waiting
from services.sync_engine.receipts.issue import ReceiptIssuer
from services.sync_engine.runs.creation_projection import CreationFiles
from services.sync_engine.runs.location import LocatedRun, RunLocator
from services.sync_engine.runs.run import RunRecord, status_by_jobs, status_change
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import FailureKind, TransferError
from services.sync_engine.validation.presync_gate import PreSyncGate

T = TypeVar("T")
_CONFLICTS = 20
_PERHAPS_AWAY = frozenset({FailureKind.NETWORK, FailureKind.TOOL_FAILED, FailureKind.CONFIGURATION})
"""What a destination that goes away in the middle makes tools say: to some of them it is a folder that is missing."""


@dataclass(frozen=True, slots=True)
class Workbench:
    """Shared by all steps. `jobs_of_run` lists a run's jobs in the order they were queued; `jitter` gives -1 … 1;
    `why_suspected` says why the jobs of (equipment, destination) wait for an operator, empty: they don't; `doubt` notes
    these files of a job's copy, which were wrong again after they were put back, against its destination;
    `before_seal` brings what else a seal takes along of a run into step with the log; `monotonic` is a clock that
    nobody can set and that goes on while the machine sleeps, in seconds."""

    engine_id: str
    log: EngineLog
    blobs: BlobStore
    locator: RunLocator
    gate: PreSyncGate
    files: CreationFiles
    destinations: Mapping[str, Sequence[Destination]]
    watch: DestinationWatch
    board: ProgressBoard
    threads: WorkThreads
    owned: Ownership
    receipts: ReceiptIssuer
    why_suspected: Callable[[str, str], str]
    doubt: Callable[[Job, Sequence[str]], Awaitable[None]]
    before_seal: Callable[[str], Awaitable[None]]
    jobs_of_run: Callable[[str], Awaitable[Sequence[Job]]]
    clock: Callable[[], datetime]
    jitter: Callable[[], float]
    logger: Logger
    monotonic: Callable[[], float] = boot_seconds
    turns_beside: weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock] = field(
        default_factory=weakref.WeakValueDictionary
    )

    def destination(self, job: Job) -> Destination | None:
        """Where the job goes; None when the configuration no longer names it."""
        found = (d for d in self.destinations.get(job.equipment_id, ()) if d.name == job.destination)
        return next(found, None)

    def why_unmended(self, job: Job) -> str:
        """Of a proven copy that the last reading found wrong: what is known to keep it so, one plain sentence."""
        if job.state not in PROVEN_STATES or job.verify_passes:
            return ""
        return self.why_suspected(job.equipment_id, job.destination) or job.unmended

    def turn_beside(self, job: Job) -> asyncio.Lock:
        """For whoever writes the records beside a run's copy at a destination: one at a time."""
        return self.turns_beside.setdefault((job.run, job.destination), asyncio.Lock())

    def control_of(self, job: Job) -> TransferControl:
        """For work on a job whose lease this engine has: it ends as soon as that may be another's."""
        return TransferControl(lambda: self.owned.holds(job.job_id))

    async def locate(self, run: str) -> LocatedRun:
        return await self.threads.run(lambda: self.locator.locate(run))

    async def append(self, job: Job, payload: Message) -> Job:
        """Appends to a job in work. A command that changed nothing of the work in hand is no conflict.

        RevisionConflictError when the job is no longer in the state and attempt that the event is about.
        """
        while True:
            try:
                return await self.log.append_to_job(BY_ITSELF, job, payload, fence=self.owned.fence(job.job_id))
            except RevisionConflictError:
                job = await self._present(job)

    async def conclude(self, job: Job, *payloads: Message) -> Job:
        """Records the outcome of a step, together with what it makes of the run's sync_status.

        RevisionConflictError when the job is no longer in the state and attempt that the outcome is of.
        """
        for _ in range(_CONFLICTS):
            after = job
            for payload in payloads:
                after = evolve(after, payload, self.clock())
            record, change = await self.status_after(after)
            try:
                changes = job_change(job, *payloads), run_change(record, *change)
                await self.log.append(BY_ITSELF, *changes, fence=self.owned.fence(job.job_id))
            except RevisionConflictError as conflict:
                if conflict.stream.startswith("job-"):
                    job = await self._present(job)
                continue
            return after
        raise RevisionConflictError(run_stream(job.run), record.revision, None)

    async def status_after(self, changed: Job) -> tuple[RunRecord, Sequence[Message]]:
        """The run, and the event that its sync_status changes by when `changed` is how the job stands."""
        record = await self.log.run(changed.run)
        jobs = latest_by_destination([*await self.jobs_of_run(changed.run), changed])
        required = [d.name for d in self.destinations.get(changed.equipment_id, ()) if d.required]
        return record, status_change(record, status_by_jobs(record, [jobs.get(name) for name in required]))

    async def fail(self, job: Job, error: TransferError, destination: Destination | None = None) -> datetime | None:
        """Records what follows on a failure. A destination that fails its own probe burns no attempt."""
        failure = failure_of_transfer(error)
        if failure.kind in _PERHAPS_AWAY and destination is not None:
            try:
                down = await self.watch.look(job.equipment_id, destination)
            except TransferError as refusal:
                down = None
                if failure.kind is not FailureKind.CONFIGURATION:
                    # It answers now, and says what is really wrong with it.
                    failure = failure_of_transfer(refusal)
                    failure = replace(failure, message=f"{failure.message}; before that: {error.message}")
            if down is not None:
                await self.hold_unreachable(job, down)
                return None
        now = self.clock()
        if job.state in PROVEN_STATES:
            # The data is proven; only its sealing failed. It is tried again until it succeeds.
            return await self.hold(job, WaitCondition.OPERATOR, failure.message, now + SEAL_PAUSE, failure)
        await self.conclude(job, after_failure(job, failure, now, self.jitter()))
        return None

    async def hold(
        self,
        job: Job,
        condition: WaitCondition,
        detail: str,
        next_try: datetime | None,
        failure: Failure | None = None,
    ) -> datetime | None:
        """Lets the job wait. Nothing is recorded when it waits for the same already; returns when to look again."""
        wait = job.wait
        same = wait is not None and wait.condition is condition and wait.detail == detail
        # A sentence has room for a few files, a failure for more.
        told = job.failure.differing if job.failure is not None else ()
        same = same and (failure is None or failure.differing == told)
        if not same or job.state is JobState.RUNNING:
            await self.conclude(job, waiting(condition, detail, self.clock(), next_try, failure))
        return next_try

    async def hold_unreachable(self, job: Job, down: Failure) -> None:
        """Lets the job wait until the destination answers again; the watch wakes it then."""
        wait = job.wait
        if wait is None or wait.condition is not WaitCondition.DESTINATION_UNREACHABLE or job.state is JobState.RUNNING:
            await self.conclude(job, unreachable(down))

    async def hold_without_destination(self, job: Job) -> datetime | None:
        """Lets the job wait until the configuration names its destination again."""
        detail = f"destination {job.destination!r} of {job.equipment_id} is not in the configuration"
        return await self.hold(job, WaitCondition.EQUIPMENT_NOT_CONFIGURED, detail, None)

    async def _present(self, job: Job) -> Job:
        """The job as the log has it now; RevisionConflictError unless it is still in the same state and attempt."""
        present = await self.log.job(job.job_id)
        if present is None or (present.state, present.attempt) != (job.state, job.attempt):
            actual = None if present is None else present.revision
            raise RevisionConflictError(job_stream(job.job_id), job.revision, actual)
        return present
