"""The intake: looks at the staging root, takes runs from one state to the next, and queues those that are all there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from labferry.events.v1 import run_events_pb2
from labferry.events.v1 import staging_events_pb2 as events
from libs.event_log.projection import AppliedEvent, ProjectionRunner
from libs.event_log.store import EventStoreError
from libs.run_tree.ingest_record import StagingState
from libs.service_kit.errors import LabferryError
from libs.service_kit.telemetry import Logger
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.runs.location import RunLocator
from services.sync_engine.runs.run_kinds import RUN_KINDS
from services.sync_engine.staging.completeness import (
    SIGNALS,
    Settling,
    Signal,
    configured_signal,
    what_is_missing,
)
from services.sync_engine.staging.driver import StagingDriver
from services.sync_engine.staging.ingest_mirror import IngestMirror
from services.sync_engine.staging.queueing import StagedQueueing
from services.sync_engine.staging.read_model import runs_cleared, staged_runs_unended
from services.sync_engine.staging.staged_run import StagedRun, StagingHold
from services.sync_engine.staging.staging_folder import LookInto, SightedRun, StagingLook, look_at_staging
from services.sync_engine.staging.steps import StagingSteps

_MOST_PAUSE, _LEAST_PAUSE = 10.0, 0.2
_SHARE = 9.0
"""Between two looks at least so many times passes as the last one took: a large root on a slow share is not looked at
all the time."""
_OF_INGEST = "ingest.json is behind:"


@dataclass(frozen=True, slots=True)
class IntakeParts:
    """What the intake works with."""

    driver: StagingDriver
    steps: StagingSteps
    queueing: StagedQueueing
    mirror: IngestMirror
    projections: ProjectionRunner
    locator: RunLocator
    threads: WorkThreads
    logger: Logger


class Intake:
    """Owns the task that looks. Folders tell nobody of a change on a network share, so they are looked at; what the log
    says of a run is followed at once."""

    def __init__(self, parts: IntakeParts, settle_seconds: float) -> None:
        self._parts = parts
        self._settle_seconds = settle_seconds
        self._settling: dict[str, Settling] = {}
        self._changed: set[str] = set()
        self._followed: set[str] = set()
        self._caught_up: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.seen = StagingLook()

    @property
    def driver(self) -> StagingDriver:
        return self._parts.driver

    async def start(self) -> None:
        await self._parts.driver.begin()
        self._task = asyncio.create_task(self._work(), name="staging intake")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._parts.driver.close()

    def applied(self, batch: Sequence[AppliedEvent]) -> None:
        """The callback of the projections."""
        for event, payload in batch:
            run = event.stream.removeprefix("run-")
            if run in self._followed and not isinstance(payload, run_events_pb2.RunEnqueueBlocked):
                self._changed.add(run)
                self._wake.set()

    async def follow(self, run: str) -> None:
        """Takes the steps of one run that its jobs and its cleanup allow, now."""
        await self._parts.steps.follow(run)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        next_look = loop.time()
        while True:
            began = loop.time()
            try:
                if await self._parts.driver.try_again():
                    await self._follow_changed()
                    if began >= next_look:
                        await self._look()
            except (LabferryError, EventStoreError, OSError) as error:
                self._parts.logger.warning("staging_not_looked_at", problem=str(error))
            if began >= next_look:
                next_look = loop.time() + max(self._pause, _SHARE * (loop.time() - began))
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_look):
                    await self._wake.wait()
            self._wake.clear()

    @property
    def _pause(self) -> float:
        """Seconds between looks: a run is complete soon after it has settled."""
        return min(_MOST_PAUSE, max(_LEAST_PAUSE, self._settle_seconds / 3))

    async def _follow_changed(self) -> None:
        while self._changed:
            run = self._changed.pop()
            try:
                record = await self._parts.steps.record(run)
                if record.state is StagingState.COMPLETE:
                    await self._parts.queueing.take(record, at_once=True)
                await self._parts.steps.follow(run)
            except (LabferryError, EventStoreError, OSError):
                # No event will tell of it again: the next look does.
                self._caught_up.discard(run)
                raise

    async def _look(self) -> None:
        parts = self._parts
        unended = await parts.projections.query(staged_runs_unended)
        cleared = await parts.projections.query(runs_cleared)
        records = {record.run: record for record in unended}

        def depth(run: str) -> LookInto:
            if run in cleared:
                return LookInto.LEFTOVERS
            record = records.get(run)
            arriving = record is None or record.state is StagingState.STAGING
            return LookInto.EVERYTHING if arriving else LookInto.PRESENCE

        root = parts.locator.staging_root
        if root is None:
            return
        self.seen = await parts.threads.run(partial(look_at_staging, root, self._configured, depth))
        self._followed = ({sighted.identity for sighted in self.seen.runs} | set(records)) - cleared
        for sighted in self.seen.runs:
            try:
                await self._one(sighted, records.get(sighted.identity), sighted.identity in cleared)
            except (LabferryError, EventStoreError, OSError) as error:
                parts.logger.warning("staged_run_not_taken", run=sighted.identity, problem=str(error))
        await self._note_gone(records)

    async def _one(self, sighted: SightedRun, record: StagedRun | None, cleared: bool) -> None:
        parts, run = self._parts, sighted.identity
        if cleared:
            await self._look_after(sighted, record)
            return
        if record is None:
            record = await self._discover(sighted)
        if _is_gone(record):
            record = await parts.steps.hold(run, None)
        if record.state is StagingState.STAGING:
            record = await self._arrive(sighted, record)
        if record.state is StagingState.COMPLETE:
            record = await parts.queueing.take(record)
        if record.state in (StagingState.SYNC_QUEUED, StagingState.SYNC_VERIFIED) and run not in self._caught_up:
            # From now on events tell of it: thousands of proven runs are not asked about at each look.
            self._caught_up.add(run)
            await parts.steps.follow(run)
            record = await parts.steps.record(run)
        await self._mirror(sighted, record)

    async def _look_after(self, sighted: SightedRun, record: StagedRun | None) -> None:
        """A cleared run: nothing is to come any more. `record` when something held it."""
        steps, run = self._parts.steps, sighted.identity
        if sighted.problem:
            record = await steps.hold(run, StagingHold.UNUSABLE, sighted.problem)
        elif record is not None and record.held is not None and not _is_of_ingest(record):
            record = await steps.hold(run, None)
        if record is not None or not self._parts.mirror.is_in_step(run, StagingState.CLEARED):
            await self._mirror(sighted, record or await steps.record(run))

    async def _discover(self, sighted: SightedRun) -> StagedRun:
        path = sighted.path
        discovered = events.StagingDiscovered(
            run=sighted.identity,
            equipment_id=path.equipment_id,
            project=path.project,
            run_kind=RUN_KINDS.to_proto(path.kind_by_leaf),
            host=self._parts.steps.host,
        )
        return await self._parts.steps.step(sighted.identity, StagingState.STAGING, discovered)

    async def _arrive(self, sighted: SightedRun, record: StagedRun) -> StagedRun:
        """One more look at a run that is being pushed."""
        steps, run = self._parts.steps, sighted.identity
        if sighted.arrival is None:
            self._settling.pop(run, None)
            return await steps.hold(run, StagingHold.UNUSABLE, sighted.problem) if sighted.problem else record
        now = asyncio.get_running_loop().time()
        settling = self._settling.setdefault(run, Settling(self._settle_seconds))
        settling.look(sighted.arrival.fingerprint, now)
        missing = what_is_missing(sighted.signal, sighted.arrival)
        if not missing and sighted.signal is not None and settling.is_settled(now):
            self._settling.pop(run)
            completed = events.StagingCompleted(
                run=run,
                file_count=sighted.arrival.file_count,
                byte_count=sighted.arrival.byte_count,
                signal=SIGNALS.to_proto(sighted.signal.kind),
                signal_file=sighted.signal.file_name,
                host=steps.host,
            )
            return await steps.step(run, StagingState.COMPLETE, completed)
        if missing and settling.is_stalled(now):
            return await steps.hold(run, StagingHold.STALLED, f"Nothing arrives any more. {missing}")
        if _is_over(record, settling):
            return await steps.hold(run, None)
        return record

    async def _mirror(self, sighted: SightedRun, record: StagedRun) -> None:
        problem = await self._parts.mirror.bring_in_step(record, sighted.folder)
        if problem and (record.held is None or _is_of_ingest(record)):
            # The run goes on without its mirror.
            await self._parts.steps.hold(record.run, StagingHold.UNUSABLE, f"{_OF_INGEST} {problem}")
        elif not problem and _is_of_ingest(record):
            await self._parts.steps.hold(record.run, None)

    async def _note_gone(self, records: dict[str, StagedRun]) -> None:
        if records and not self.seen.equipment:
            # A mount point without its mount: nothing is gone, it can't be seen.
            self._parts.logger.warning("staging_root_is_empty", runs=len(records))
            return
        seen = {sighted.identity for sighted in self.seen.runs}
        for run in [run for run in self._settling if run not in seen]:
            del self._settling[run]
        for run, record in records.items():
            if run not in seen and not _is_gone(record):
                # A cleanup that took the cache folder too ends with the folder gone.
                await self._parts.steps.follow(run)
                if (await self._parts.steps.record(run)).state is StagingState.CLEARED:
                    await self._parts.steps.hold(run, None)
                else:
                    await self._parts.steps.hold(run, StagingHold.GONE, "Its folder is gone.")

    def _configured(self, equipment_id: str) -> tuple[str, Signal] | None:
        for equipment in self._parts.locator.all_equipment:
            if equipment.id == equipment_id:
                return equipment.label, configured_signal(equipment)
        return None


def _is_of_ingest(record: StagedRun) -> bool:
    return record.held is not None and record.held.detail.startswith(_OF_INGEST)


def _is_over(record: StagedRun, settling: Settling) -> bool:
    """Whether what held an arriving run holds it no more."""
    if record.held is None or _is_of_ingest(record):
        return False
    return record.held.hold is not StagingHold.STALLED or settling.has_moved()


def _is_gone(record: StagedRun) -> bool:
    return record.held is not None and record.held.hold is StagingHold.GONE
