"""The steps of staged runs: each an event first, then a line in `ingest.json` (SPEC §8)."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from labferry.events.v1 import staging_events_pb2 as events
from libs.event_log.projection import ProjectionRunner
from libs.run_tree.creation_record import SyncStatus
from libs.run_tree.ingest_record import StagingState
from libs.service_kit.errors import LabferryError
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.engine_log import BY_ITSELF, EngineLog, decided_anew, staged_change
from services.sync_engine.runs.location import LocatedRun, RunLocator
from services.sync_engine.staging.ingest_mirror import IngestMirror
from services.sync_engine.staging.nas_path import nas_path
from services.sync_engine.staging.read_model import staged_run
from services.sync_engine.staging.staged_run import HOLDS, Held, StagedRun, StagingHold, may_step

_PROVEN = (SyncStatus.SYNCED, SyncStatus.CLEANED)


class StagingSteps:
    """Records steps, and follows those that the run's jobs and its cleanup decide."""

    def __init__(
        self,
        log: EngineLog,
        projections: ProjectionRunner,
        locator: RunLocator,
        threads: WorkThreads,
        mirror: IngestMirror,
        host: str,
    ) -> None:
        self._log = log
        self._projections = projections
        self._locator = locator
        self._threads = threads
        self._mirror = mirror
        self.host = host

    async def record(self, run: str) -> StagedRun:
        """As the log has it now."""
        return await self._projections.query(lambda c: staged_run(c, run))

    async def is_cleaned(self, run: str) -> bool:
        """Whether the run's data was deleted, and nothing was brought since."""
        record = await self._log.run(run)
        return record.sync_status is SyncStatus.CLEANED and record.open_cleanup is None

    async def step(self, run: str, state: StagingState, event: Message) -> StagedRun:
        """The run after the event; nothing is recorded when `state` isn't its very next one."""
        return await self._append(run, lambda record: event if may_step(record, state) else None)

    async def hold(self, run: str, hold: StagingHold | None, detail: str = "") -> StagedRun:
        """The run with what holds it, or with nothing that does; nothing is recorded when it is so already."""
        held = None if hold is None else Held(hold, detail)
        event = events.StagingHeld(run=run, detail=detail)
        if hold is not None:
            event.hold = HOLDS.to_proto(hold)
        return await self._append(run, lambda record: None if record.held == held else event)

    async def follow(self, run: str) -> None:
        """Takes the steps that the log of the run allows: proven, and cleared. Does nothing for a run that isn't
        staged."""
        if self._locator.staging_root is None:
            return
        record = await self.record(run)
        status = (await self._log.run(run)).sync_status
        if record.state is StagingState.SYNC_QUEUED and status in _PROVEN:
            path = self._locator.parse(run)
            where = nas_path(self._locator.equipment(path.equipment_id), path)
            verified = events.StagingVerified(run=run, nas_path=where, host=self.host)
            record = await self.step(run, StagingState.SYNC_VERIFIED, verified)
        if record.state is StagingState.SYNC_VERIFIED and status is SyncStatus.CLEANED:
            cleared = events.StagingCleared(run=run, host=self.host)
            record = await self.step(run, StagingState.CLEARED, cleared)
        located = await self._located(run) if record.state is not None else None
        if located is not None:
            await self._mirror.bring_in_step(record, located.folder)

    async def _located(self, run: str) -> LocatedRun | None:
        try:
            located = await self._threads.run(lambda: self._locator.locate(run))
        except LabferryError:
            # Its folder went with the cleanup, or its equipment is no longer configured.
            return None
        return located if located.is_staged else None

    async def _append(self, run: str, decide: Callable[[StagedRun], Message | None]) -> StagedRun:
        async def attempt() -> bool:
            record = await self.record(run)
            event = decide(record)
            if event is None:
                return False
            await self._log.append(BY_ITSELF, staged_change(record, event))
            return True

        await decided_anew(attempt)
        return await self.record(run)
