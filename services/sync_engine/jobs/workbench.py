"""What every step of a job works with: the log, the run on disk, the destination, and the way to record an outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from google.protobuf.message import Message

from libs.event_log.blob_store import BlobStore
from libs.event_log.store import RevisionConflictError
from libs.run_tree.creation_record import SyncStatus
from libs.service_kit.telemetry import Logger
from services.sync_engine.engine_log import BY_ITSELF, EngineLog, job_change, run_change
from services.sync_engine.jobs.job import PROVEN_STATES, Failure, Job, JobState, WaitCondition, evolve
from services.sync_engine.jobs.progress import ProgressBoard
from services.sync_engine.jobs.read_model import latest_by_destination
from services.sync_engine.jobs.retry import SEAL_PAUSE, after_failure, unreachable, waiting
from services.sync_engine.runs.creation_projection import CreationFiles
from services.sync_engine.runs.location import LocatedRun, RunLocator
from services.sync_engine.runs.run import RunRecord, status_by_jobs, status_change
from services.sync_engine.transfer.transport import FailureKind, TransferError, Transport
from services.sync_engine.validation.presync_gate import PreSyncGate

T = TypeVar("T")
_CONFLICTS = 20


@dataclass(frozen=True, slots=True)
class Destination:
    """One configured destination of one equipment."""

    name: str
    required: bool
    transport: Transport


@dataclass(frozen=True, slots=True)
class Workbench:
    """Shared by all steps. `jobs_of_run` lists a run's jobs in the order they were queued; `jitter` gives -1 … 1."""

    engine_id: str
    log: EngineLog
    blobs: BlobStore
    locator: RunLocator
    gate: PreSyncGate
    files: CreationFiles
    destinations: Mapping[str, Sequence[Destination]]
    board: ProgressBoard
    jobs_of_run: Callable[[str], Awaitable[Sequence[Job]]]
    clock: Callable[[], datetime]
    jitter: Callable[[], float]
    logger: Logger
    executors: Mapping[str, ThreadPoolExecutor] = field(default_factory=dict)

    def destination(self, job: Job) -> Destination | None:
        """Where the job goes; None when the configuration no longer names it."""
        found = (d for d in self.destinations.get(job.equipment_id, ()) if d.name == job.destination)
        return next(found, None)

    async def in_thread(self, equipment_id: str, work: Callable[[], T]) -> T:
        """Runs blocking work on a thread of the equipment's own, so that a hung destination holds up no other."""
        return await asyncio.get_running_loop().run_in_executor(self.executors[equipment_id], work)

    async def locate(self, run: str) -> LocatedRun:
        return await asyncio.to_thread(self.locator.locate, run)

    async def conclude(self, job: Job, *payloads: Message) -> Job:
        """Records the outcome of a step, together with what it makes of the run's sync_status."""
        after = job
        for payload in payloads:
            after = evolve(after, payload, self.clock())
        for _ in range(_CONFLICTS):
            record = await self.log.run(job.run)
            change = status_change(record, await self._run_status(record, after))
            try:
                await self.log.append(BY_ITSELF, job_change(job, *payloads), run_change(record, *change))
            except RevisionConflictError as conflict:
                if conflict.stream.startswith("job-"):
                    raise
                continue
            return after
        raise RevisionConflictError(f"run-{job.run}", record.revision, None)

    async def _run_status(self, record: RunRecord, changed: Job) -> SyncStatus:
        jobs = latest_by_destination([*await self.jobs_of_run(changed.run), changed])
        required = [d.name for d in self.destinations.get(changed.equipment_id, ()) if d.required]
        return status_by_jobs(record, [jobs.get(name) for name in required])

    async def fail(self, job: Job, error: TransferError, destination: Destination | None = None) -> None:
        """Records what follows on a failure. A destination that fails its own probe burns no attempt."""
        failure = failure_of_transfer(error)
        now = self.clock()
        if failure.kind is FailureKind.NETWORK and destination is not None:
            try:
                await self.in_thread(job.equipment_id, destination.transport.check)
            except TransferError as down:
                await self.conclude(job, unreachable(job, failure_of_transfer(down), now))
                return
        if job.state in PROVEN_STATES:
            # The data is proven; only its sealing failed. It is tried again until it succeeds.
            await self.hold(job, WaitCondition.OPERATOR, failure.message, now + SEAL_PAUSE, failure)
            return
        await self.conclude(job, after_failure(job, failure, now, self.jitter()))

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
        if not same or job.state is JobState.RUNNING:
            await self.conclude(job, waiting(condition, detail, next_try, failure))
        return next_try

    async def hold_without_destination(self, job: Job) -> datetime | None:
        """Lets the job wait until the configuration names its destination again."""
        detail = f"destination {job.destination!r} of {job.equipment_id} is not in the configuration"
        return await self.hold(job, WaitCondition.EQUIPMENT_NOT_CONFIGURED, detail, None)


def failure_of_transfer(error: TransferError) -> Failure:
    return Failure(error.kind, error.message, tuple(p.decode(errors="replace") for p in error.paths[:100]))
