"""What follows on the proof of a run's copies, wired: cleanup of the local data, and what is asked about the copies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from libs.event_log.projection import ProjectionRunner
from libs.service_kit.settings import CleanupSettings, Settings
from services.sync_engine.cleanup.cache_folder import CacheFolder
from services.sync_engine.cleanup.clean_run import CleanRun
from services.sync_engine.cleanup.execution import Execution
from services.sync_engine.cleanup.interlocks import CleanupRules
from services.sync_engine.cleanup.reaper import Reaper
from services.sync_engine.cleanup.recovery import finish_interrupted_cleanups
from services.sync_engine.cleanup.ticket import Limits
from services.sync_engine.jobs.job import JobState
from services.sync_engine.jobs.news import JobNews
from services.sync_engine.jobs.read_model import JobFilter, jobs_where
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.proof_methods import ProofParts
from services.sync_engine.receipts.queries import ProofQueries
from services.sync_engine.runs.read_model import runs_in_cleanup


def cleanup_rules(settings: CleanupSettings) -> CleanupRules:
    return CleanupRules(
        enabled=settings.enabled,
        min_verify_passes=settings.min_verify_passes,
        min_age=timedelta(hours=settings.min_age_hours),
        retain_cache=settings.retain_cache,
        limits=Limits(settings.max_files, settings.max_bytes),
    )


@asynccontextmanager
async def after_proof(
    bench: Workbench, settings: Settings, projections: ProjectionRunner, news: JobNews
) -> AsyncIterator[ProofParts]:
    """Finishes what a crash left of deletions, then lets the reaper begin; ends both with the block."""
    rules = cleanup_rules(settings.nas_cleanup)
    async with AsyncExitStack() as resources:
        execution = Execution(bench, rules, CacheFolder(bench))
        await finish_interrupted_cleanups(bench, execution, await projections.query(runs_in_cleanup))
        clean = CleanRun(bench, rules, execution)
        resources.push_async_callback(clean.close)
        reaper = Reaper(clean, bench, rules, bench.logger)
        resources.push_async_callback(reaper.close)
        if rules.enabled:
            news.listen(lambda placed: reaper.notice(placed.job))
            verified = JobFilter(states=(JobState.VERIFIED, JobState.CLEANUP_ELIGIBLE))
            reaper.start(p.job for p in await projections.query(lambda c: jobs_where(c, verified)))
        yield ProofParts(clean, ProofQueries(bench))
