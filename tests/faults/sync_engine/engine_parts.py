"""The engine's own parts in the test's process, on real folders and with a clock that can be set."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from labferry.events.v1 import job_events_pb2
from libs.event_log.blob_store import BlobStore
from libs.event_log.memory_store import MemoryEventStore
from libs.run_tree.record_lock import DEFAULT_LOCK_TIMEOUT
from libs.service_kit.boot_clock import boot_seconds
from libs.service_kit.equipment_settings import EquipmentSettings
from libs.service_kit.settings import VerifySettings
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.cleanup.cache_folder import CacheFolder
from services.sync_engine.cleanup.clean_run import Cleaned, CleanRun
from services.sync_engine.cleanup.copy_reading import CopyReading
from services.sync_engine.cleanup.deletion import delete_files
from services.sync_engine.cleanup.execution import Execution
from services.sync_engine.cleanup.interlocks import CleanupRules
from services.sync_engine.cleanup.recovery import finish_interrupted_cleanups
from services.sync_engine.cleanup.ticket import Limits
from services.sync_engine.cleanup.work import CleanupWork
from services.sync_engine.copies_apart import CopiesApart
from services.sync_engine.destinations import open_brakes, open_destinations
from services.sync_engine.engine_log import Cause, EngineLog
from services.sync_engine.event_types import EVENT_TYPES
from services.sync_engine.jobs.destination_watch import DestinationWatch
from services.sync_engine.jobs.enqueue import Enqueue, Enqueued
from services.sync_engine.jobs.file_list import sent_among
from services.sync_engine.jobs.gate_watch import GateWatch
from services.sync_engine.jobs.job import PROVEN_STATES, Job, JobState
from services.sync_engine.jobs.making_way import MakingWay, Slot
from services.sync_engine.jobs.ownership import Ownership, SoleOwnership
from services.sync_engine.jobs.progress import ProgressBoard
from services.sync_engine.jobs.runner import Runner
from services.sync_engine.jobs.verify_run import VerifyRun
from services.sync_engine.jobs.work_in_hand import WorkInHand
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.receipts.issue import ReceiptIssuer
from services.sync_engine.runs.creation_keeper import CreationKeeper
from services.sync_engine.runs.creation_projection import CreationFiles
from services.sync_engine.runs.location import RunLocator
from services.sync_engine.runs.override_commands import OverrideCommands
from services.sync_engine.targets.keeper import TargetKeeper
from services.sync_engine.transfer.rclone_start import no_config_password
from services.sync_engine.transfer.second_process.process import SecondProcess
from services.sync_engine.validation.finding import Rule
from services.sync_engine.validation.presync_gate import PreSyncGate
from services.sync_engine.validation.walk import AuditRules
from tests.integration.sync_engine.running_engine import creation_document

RUN = "CONFOCAL_01/Cortex Q3 Pilot/Runs/Run_2026-04-17T14-32"
TEST = Cause("operator-1", "because")
STALL_SECONDS = 60.0
FOLDERS = {"default": "nas", "archive": "archive"}
"""Where each destination's copies lie."""


@dataclass
class SetClock:
    """Time that a test sets; every reading is a millisecond later than the one before. `passed`: seconds that went by
    on the clock that nobody can set."""

    now: datetime = datetime(2026, 5, 1, 12, tzinfo=UTC)
    passed: float = 0.0

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now

    def monotonic(self) -> float:
        return boot_seconds() + self.passed

    def nanoseconds(self) -> int:
        return round(self().timestamp() * 1e6) * 1000


class SetSlot:
    """The equipment's slot, as the scheduler would tell of it."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._state = Slot.IDLE
        self.making_way = MakingWay(lambda equipment_id: self._state, monotonic)
        self.listeners = [self.making_way.busy]

    def become(self, state: Slot) -> None:
        self._state = state
        for listener in self.listeners:
            listener("CONFOCAL_01", state is not Slot.IDLE)


@dataclass
class Parts:
    """One run of one equipment with one destination or two, and what works on it."""

    folder: Path
    clock: SetClock
    bench: Workbench
    runner: Runner
    enqueue: Enqueue
    verify: VerifyRun
    overrides: OverrideCommands
    cleaner: CleanRun
    execution: Execution
    reading: CopyReading
    slot: SetSlot
    targets: TargetKeeper
    restarted: Callable[[], tuple[Execution, CopyReading, CleanRun]]
    threads: WorkThreads = field(repr=False)

    @property
    def here(self) -> Path:
        return self.folder / "lab" / RUN

    @property
    def there(self) -> Path:
        return self.copy("default")

    def copy(self, destination: str) -> Path:
        """The run's copy."""
        return self.folder / FOLDERS[destination] / RUN.partition("/")[2]

    async def restart(self) -> None:
        """As after a crash: whatever was in work is forgotten, and what it left in the log and on disk is found."""
        self.execution, self.reading, self.cleaner = self.restarted()
        await finish_interrupted_cleanups(self.bench, self.execution, [RUN])

    async def bring(self) -> Enqueued:
        """Queues the run and takes its jobs as far as they go now."""
        answer = await self.enqueue.run(RUN, TEST, None)
        # The first destination is sealed anew once the last one is verified.
        rounds = len(self.bench.destinations["CONFOCAL_01"])
        for job in rounds * list(await self.bench.jobs_of_run(RUN)):
            await self.step(job.job_id)
        return answer

    async def step(self, job_id: str) -> None:
        """What the scheduler does, as long as the job may go on at once."""
        while True:
            await self.runner.step(job_id)
            job = await self.bench.log.job(job_id)
            if job is None or job.state is not JobState.QUEUED or job.wait is not None:
                return
            if job.next_attempt is not None and job.next_attempt > self.clock():
                return

    async def seal_anew(self) -> None:
        """Brings each proven copy what the run's changing files say now, where that is another thing."""
        for job in await self.bench.jobs_of_run(RUN):
            if job.state in PROVEN_STATES:
                await self.runner.step(job.job_id)

    async def pass_over(self) -> None:
        """One VerifyRun, however it ends."""
        async for _ in self.verify.verify(RUN, None, TEST):
            pass

    async def clean(self) -> Cleaned:
        return await self.cleaner.clean(RUN, TEST)

    def take_slot(self, taken: bool) -> None:
        """A transfer of the equipment begins, or the last one has ended."""
        self.slot.become(Slot.IN_WORK if taken else Slot.IDLE)

    def before_each_deletion(self, meddle: Callable[[], Awaitable[None]]) -> None:
        """Lets something happen whenever a portion of files is about to be deleted."""
        run = self.bench.threads.run

        async def meddle_and_run(work: Callable[[], Any]) -> Any:
            if getattr(work, "func", None) is delete_files:
                await meddle()
            return await run(work)

        self.bench.threads.run = meddle_and_run  # type: ignore[method-assign]

    async def revoke_an_override(self) -> None:
        logged = await self.overrides.record(RUN, Rule.LEFTOVER_JINJA_MARKER, "asmith", "meant", None, TEST, None)
        await self.overrides.revoke(RUN, logged.entry.id or "", "asmith", "no longer", TEST, None)


async def _nothing_more(run: str) -> None:
    """No run is staged here."""


@asynccontextmanager
async def engine_parts(
    folder: Path,
    rules: CleanupRules | None = None,
    *,
    stall_seconds: float = STALL_SECONDS,
    upload_mbps: float | None = None,
    portion_files: int = 100,
    archive: bool = False,
    owned: Callable[[MemoryEventStore], Ownership] = lambda store: SoleOwnership(),
) -> AsyncIterator[Parts]:
    """The folder gets `lab` with the run's creation.json and an empty `nas`; `archive`: and that, as a second
    destination."""
    clock = SetClock()
    logger = structlog.get_logger()
    local_root = folder / "lab"
    cache = local_root / RUN / ".exlab-wizard"
    cache.mkdir(parents=True)
    (cache / "creation.json").write_text(json.dumps(creation_document()), encoding="utf-8")
    destinations_named = []
    for name in ("default", "archive") if archive else ("default",):
        (folder / FOLDERS[name]).mkdir()
        transport: dict[str, Any] = {"type": "mounted", "path": str(folder / FOLDERS[name])}
        if upload_mbps is not None:
            transport["bandwidth"] = {"upload_mbps": upload_mbps}
        destinations_named.append({"name": name, "transport": transport})
    equipment = EquipmentSettings.model_validate(
        {"id": "CONFOCAL_01", "local_root": str(local_root), "destinations": destinations_named}
    )
    store = MemoryEventStore(service="sync_engine", version="1", clock=clock.nanoseconds)
    log, threads, locator = EngineLog(store), WorkThreads("parts"), RunLocator((equipment,))
    files = CreationFiles(log, DEFAULT_LOCK_TIMEOUT, threads)
    apart = CopiesApart((equipment,), None)
    destinations = open_destinations(
        (equipment,), (), VerifySettings(), lambda _, control: no_config_password(control), apart, SecondProcess()
    )
    watch = DestinationWatch(threads, clock, logger, stall_seconds)

    async def jobs_of_run(run: str) -> Sequence[Job]:
        queued = [EVENT_TYPES.decode(e) async for page in store.read() for e in page]
        ids = [q.job_id for q in queued if isinstance(q, job_events_pb2.JobQueued) and q.run == run]
        return [job for job in [await log.job(job_id) for job_id in ids] if job is not None]

    bench = Workbench(
        engine_id="parts",
        log=log,
        blobs=BlobStore(folder / "blobs"),
        locator=locator,
        gate=PreSyncGate(log, files, locator, AuditRules(), threads),
        files=files,
        destinations=destinations,
        watch=watch,
        board=ProgressBoard(),
        threads=threads,
        owned=owned(store),
        why_suspected=lambda equipment_id, name: targets.why_suspected(equipment_id, name),
        doubt=lambda job, paths: targets.doubt(job, paths),
        before_seal=_nothing_more,
        receipts=ReceiptIssuer(log, Ed25519PrivateKey.generate(), jobs_of_run, clock),
        jobs_of_run=jobs_of_run,
        clock=clock,
        jitter=lambda: 0.0,
        logger=logger,
        monotonic=clock.monotonic,
    )

    async def sent(job: Job, paths: Sequence[str]) -> Sequence[str]:
        return sent_among(bench.blobs, job, paths)

    targets = TargetKeeper(log, destinations, logger, lambda equipment_id, name: None, sent)
    await targets.start(())
    keeper = CreationKeeper(log, files, locator, logger)
    rules = rules or CleanupRules(True, 2, timedelta(hours=24), True, Limits(1000, 1 << 30))
    slot, in_hand, brakes = SetSlot(clock.monotonic), WorkInHand(threads, stall_seconds), open_brakes((equipment,))

    def restarted() -> tuple[Execution, CopyReading, CleanRun]:
        work = CleanupWork(in_hand)
        execution = Execution(bench, rules, CacheFolder(bench, work), portion_files=portion_files, again_seconds=0.02)
        reading = CopyReading(bench, work, brakes, slot.making_way)
        slot.listeners[1:] = [reading.busy]
        return execution, reading, CleanRun(bench, rules, execution, reading, work)

    execution, reading, cleaner = restarted()
    parts = Parts(
        folder=folder,
        clock=clock,
        bench=bench,
        runner=Runner(bench, GateWatch(), in_hand),
        enqueue=Enqueue(bench, keeper),
        verify=VerifyRun(bench, in_hand),
        overrides=OverrideCommands(log, files, keeper, locator, clock),
        cleaner=cleaner,
        execution=execution,
        reading=reading,
        slot=slot,
        targets=targets,
        restarted=restarted,
        threads=threads,
    )
    try:
        yield parts
    finally:
        await targets.close()
        await parts.cleaner.close()
        await watch.close()
        threads.close()
        await store.close()
