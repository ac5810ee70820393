"""What follows on the proof of a run's copies, wired: audits, cleanup of the local data, and questions about them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from libs.event_log.projection import ProjectionRunner
from libs.service_kit.settings import CleanupSettings, Settings
from services.sync_engine.audits.auditor import Auditor, PassRules
from services.sync_engine.audits.first_seen import FirstSeen
from services.sync_engine.audits.reading import CopyReading as AuditReading
from services.sync_engine.cleanup.cache_folder import CacheFolder
from services.sync_engine.cleanup.clean_run import CleanRun
from services.sync_engine.cleanup.copy_reading import CopyReading
from services.sync_engine.cleanup.execution import Execution
from services.sync_engine.cleanup.interlocks import CleanupRules
from services.sync_engine.cleanup.reaper import Reaper
from services.sync_engine.cleanup.recovery import finish_interrupted_cleanups
from services.sync_engine.cleanup.ticket import Limits
from services.sync_engine.cleanup.work import CleanupWork
from services.sync_engine.destinations import open_brakes
from services.sync_engine.jobs.job import JobState
from services.sync_engine.jobs.making_way import MakingWay
from services.sync_engine.jobs.news import JobNews
from services.sync_engine.jobs.read_model import JobFilter, jobs_where
from services.sync_engine.jobs.scheduler import Scheduler
from services.sync_engine.jobs.work_in_hand import WorkInHand
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
        delete_without_lease=settings.delete_without_lease,
    )


def pass_rules(settings: Settings) -> PassRules:
    days = settings.verify.scrub_interval_days
    return PassRules(
        passes=settings.nas_cleanup.min_verify_passes,
        interval=timedelta(hours=settings.verify.audit_interval_hours),
        scrub_interval=None if days is None else timedelta(days=days),
    )


@asynccontextmanager
async def after_proof(
    bench: Workbench,
    settings: Settings,
    projections: ProjectionRunner,
    news: JobNews,
    scheduler: Scheduler,
    in_hand: WorkInHand,
) -> AsyncIterator[ProofParts]:
    """Finishes what a crash left of deletions, then lets the reaper and the audits begin; ends all with the block."""
    rules = cleanup_rules(settings.nas_cleanup)
    async with AsyncExitStack() as resources:
        brakes, work = open_brakes(settings.equipment), CleanupWork(in_hand)
        execution = Execution(bench, rules, CacheFolder(bench, work))
        await finish_interrupted_cleanups(bench, execution, await projections.query(runs_in_cleanup))
        making_way = MakingWay(scheduler.slot, bench.monotonic)
        before_cleanup = CopyReading(bench, work, brakes, making_way)
        clean = CleanRun(bench, rules, execution, before_cleanup, work)
        resources.push_async_callback(clean.close)
        reaper = Reaper(clean, bench, rules, bench.logger)
        resources.push_async_callback(reaper.close)
        if rules.enabled:
            news.listen(lambda placed: reaper.notice(placed.job))
            verified = JobFilter(states=(JobState.VERIFIED, JobState.CLEANUP_ELIGIBLE))
            reaper.start(p.job for p in await projections.query(lambda c: jobs_where(c, verified)))
        first_seen = FirstSeen(bench.clock, bench.monotonic)
        reading = AuditReading(bench, in_hand, brakes, first_seen)
        auditor = Auditor(bench, projections, reading, pass_rules(settings), making_way, first_seen)
        resources.push_async_callback(auditor.close)
        projections.on_applied(auditor.applied)
        # First, since the others ask it.
        scheduler.on_busy(making_way.busy)
        scheduler.on_busy(auditor.busy)
        scheduler.on_busy(before_cleanup.busy)
        bench.watch.on_back(auditor.destination_back)
        auditor.start()
        yield ProofParts(clean, ProofQueries(bench))
