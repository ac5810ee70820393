"""Clearing: deletes the data of proven runs below the staging root, under every interlock of cleanup (SPEC §8)."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from libs.event_log.projection import ProjectionRunner
from libs.event_log.store import EventStoreError
from libs.run_tree.creation_errors import CreationError
from libs.run_tree.ingest_record import StagingState
from libs.service_kit.errors import LabferryError
from libs.service_kit.telemetry import Logger
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.cleanup.back_off import AGAIN, BackOff
from services.sync_engine.cleanup.clean_run import Cleaned, CleanRun
from services.sync_engine.cleanup.interlocks import Interlock, InterlockName
from services.sync_engine.engine_log import BY_ITSELF, Cause
from services.sync_engine.errors import RunNotFoundError, StagingNotDrivenError
from services.sync_engine.runs.location import RunLocator
from services.sync_engine.staging.driver import StagingDriver
from services.sync_engine.staging.leftovers import leftover_problem
from services.sync_engine.staging.read_model import staged_run, staged_runs_in
from services.sync_engine.staging.staged_run import StagedRun
from services.sync_engine.staging.steps import StagingSteps
from services.sync_engine.validation.walk import WalkError

_LOOK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ClearedRun:
    """What became of one run. `problem` empty: it was looked at."""

    run: str
    cleaned: Cleaned
    problem: str = ""


class ClearStagedRuns:
    """The command. One run after another; a deletion that was begun goes on though the caller went away."""

    def __init__(
        self,
        clean: CleanRun,
        steps: StagingSteps,
        projections: ProjectionRunner,
        locator: RunLocator,
        threads: WorkThreads,
        driver: StagingDriver | None,
    ) -> None:
        self._clean = clean
        self._steps = steps
        self._projections = projections
        self._locator = locator
        self._threads = threads
        self._driver = driver

    async def run(self, runs: Sequence[str], dry_run: bool, cause: Cause) -> Sequence[ClearedRun]:
        """RunNotFoundError before anything is deleted; StagingNotDrivenError."""
        self._refuse_unless_driving()
        records = [await self._known(run) for run in runs]
        return [await self._one(record, dry_run, cause) for record in records]

    def _refuse_unless_driving(self) -> None:
        problem = "no staging root is configured" if self._driver is None else self._driver.problem
        if problem:
            root = str(self._locator.staging_root or "")
            metadata = {"staging_root": root, "detail": problem}
            raise StagingNotDrivenError(f"this engine drives no staging root: {problem}", metadata=metadata)

    async def _known(self, run: str) -> StagedRun:
        self._locator.parse(run)
        record = await self._projections.query(lambda c: staged_run(c, run))
        if record.state is None:
            raise RunNotFoundError(f"there is no staged run {run}", metadata={"run": run})
        return record

    async def _one(self, record: StagedRun, dry_run: bool, cause: Cause) -> ClearedRun:
        run = record.run
        if record.state is StagingState.CLEARED and await self._holds_nothing(run):
            return ClearedRun(run, Cleaned(True))
        try:
            lacking = await self._lacking(record)
            if lacking is not None and not dry_run:
                return ClearedRun(run, Cleaned(False, [lacking]))
            cleaned = await self._clean.look(run) if dry_run else await self._clean.clean(run, cause)
        except (LabferryError, CreationError, WalkError) as error:
            return ClearedRun(run, Cleaned(False), error.message)
        await self._steps.follow(run)
        if cleaned.cleaned and record.state is StagingState.CLEARED:
            # What appeared since is gone too.
            await self._steps.hold(run, None)
        if cleaned.before:
            return ClearedRun(run, cleaned)
        state = lacking or Interlock(InterlockName.STAGING_STATE, True, f"the run is {record.state}")
        return ClearedRun(run, replace(cleaned, interlocks=[state, *cleaned.interlocks]))

    async def _holds_nothing(self, run: str) -> bool:
        """Whether a cleared run's folder is as it was left. What can't be seen may hold anything."""
        root = self._locator.staging_root
        if root is None or not await self._steps.is_cleaned(run):
            return False
        return not await self._threads.run(lambda: leftover_problem(Path(os.path.realpath(root), run)))

    async def _lacking(self, record: StagedRun) -> Interlock | None:
        """The interlock of staging itself, when it doesn't hold."""
        name = InterlockName.STAGING_STATE
        if record.state not in (StagingState.SYNC_VERIFIED, StagingState.CLEARED):
            return Interlock(name, False, f"the run is {record.state}; only {StagingState.SYNC_VERIFIED} is cleared")
        located = await self._threads.run(lambda: self._locator.locate(record.run))
        if not located.is_staged:
            return Interlock(name, False, f"a run of this path lies in {located.root} too, and is meant by its name")
        return None


class ScheduledClearing:
    """Clears proven runs so many hours after they were proven. Owns one task."""

    def __init__(
        self,
        clear: ClearStagedRuns,
        projections: ProjectionRunner,
        driver: StagingDriver,
        retain: timedelta,
        clock: Callable[[], datetime],
        logger: Logger,
    ) -> None:
        self._clear = clear
        self._projections = projections
        self._driver = driver
        self._retain = retain
        self._clock = clock
        self._logger = logger
        self._again: dict[str, float] = {}
        self._back_off = BackOff()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._work(), name="staging clearing")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        while True:
            if self._driver.driving:
                try:
                    await self._clear_due()
                except EventStoreError as error:
                    self._logger.warning("staging_not_cleared", problem=str(error))
            await asyncio.sleep(_LOOK_SECONDS)

    async def _clear_due(self) -> None:
        loop = asyncio.get_running_loop()
        verified = await self._projections.query(lambda c: staged_runs_in(c, (StagingState.SYNC_VERIFIED,)))
        self._again = {record.run: self._again.get(record.run, 0.0) for record in verified}
        for record in verified:
            if self._again[record.run] > loop.time() or not is_due(record, self._retain, self._clock()):
                continue
            self._again[record.run] = loop.time() + AGAIN.total_seconds()
            try:
                (done,) = await self._clear.run([record.run], False, BY_ITSELF)
            except LabferryError as error:
                self._logger.warning("staged_run_not_cleared", run=record.run, problem=error.message)
                continue
            except EventStoreError:
                raise
            except Exception as error:
                # What is wrong with one run, a lost blob or a damaged history, holds up no other.
                self._logger.error("clearing_defect", run=record.run, error_id=uuid.uuid4().hex, exc_info=error)
                continue
            if done.cleaned.cleaned:
                self._back_off.forget(record.run)
                self._logger.info("staged_run_cleared", run=record.run, files=done.cleaned.file_count)
            elif done.cleaned.read_data and not done.problem:
                pause = self._back_off.after(record.run, done.cleaned.outcome)
                self._again[record.run] = loop.time() + pause.total_seconds()


def is_due(record: StagedRun, retain: timedelta, now: datetime) -> bool:
    """Whether the run was proven long enough ago. A time that lies ahead is a clock that was set back: nothing is due
    then."""
    since = record.reached(StagingState.SYNC_VERIFIED)
    return since is not None and timedelta(0) <= now - since and now - since >= retain
