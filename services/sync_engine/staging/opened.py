"""Staging, wired: opened with its lock, looking, and clearing where that is scheduled; ended with the block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from libs.event_log.projection import ProjectionRunner
from libs.service_kit.settings import OrchestratorSettings
from services.sync_engine.cleanup.clean_run import CleanRun
from services.sync_engine.jobs.enqueue import Enqueue
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.staging.clearing import ClearStagedRuns, ScheduledClearing
from services.sync_engine.staging.driver import StagingDriver
from services.sync_engine.staging.ingest_mirror import IngestMirror
from services.sync_engine.staging.intake import Intake, IntakeParts
from services.sync_engine.staging.queueing import StagedQueueing
from services.sync_engine.staging.servicer import StagingServicer
from services.sync_engine.staging.staged_list import StagedList
from services.sync_engine.staging.steps import StagingSteps


@asynccontextmanager
async def staging(
    bench: Workbench,
    settings: OrchestratorSettings,
    projections: ProjectionRunner,
    enqueue: Enqueue,
    clean: CleanRun,
    steps: StagingSteps,
    mirror: IngestMirror,
) -> AsyncIterator[StagingServicer]:
    """Answers without a staging root too: then there is nothing to list, and nothing to clear."""
    root = settings.staging_folder
    async with AsyncExitStack() as resources:
        driver = None if root is None else StagingDriver(root, bench.threads, bench.logger)
        clear = ClearStagedRuns(clean, steps, projections, bench.locator, bench.threads, driver)
        intake = None
        if driver is not None:
            queueing = StagedQueueing(bench, enqueue, steps)
            parts = IntakeParts(
                driver, steps, queueing, mirror, projections, bench.locator, bench.threads, bench.logger
            )
            intake = Intake(parts, settings.settle_seconds)
            projections.on_applied(intake.applied)
            resources.push_async_callback(intake.close)
            await intake.start()
            if settings.staging_cleanup.mode == "scheduled":
                retain = timedelta(hours=settings.staging_cleanup.retain_hours)
                clearing = ScheduledClearing(clear, projections, driver, retain, bench.clock, bench.logger)
                resources.push_async_callback(clearing.close)
                clearing.start()
        yield StagingServicer(settings.staging_root, StagedList(projections, intake), clear)
