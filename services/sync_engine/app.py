"""The composition root of the sync engine."""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

from labferry.events.v1 import run_events_pb2
from libs.event_log.blob_store import BlobStore
from libs.event_log.checkpoint_keeper import keeping_checkpoints
from libs.event_log.open_store import open_event_store
from libs.event_log.projection import AppliedEvent, ProjectionRunner
from libs.event_log.published import publish_event_log
from libs.run_tree.creation_json import DEFAULT_LOCK_TIMEOUT
from libs.service_kit.run import Composition, ServiceEnvironment
from services.sync_engine.destinations import open_destinations
from services.sync_engine.engine_log import EngineLog
from services.sync_engine.event_types import EVENT_TYPES
from services.sync_engine.jobs import servicer as jobs_servicer
from services.sync_engine.jobs.enqueue import Enqueue
from services.sync_engine.jobs.gate_watch import GateWatch
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.news import JobNews
from services.sync_engine.jobs.progress import ProgressBoard
from services.sync_engine.jobs.queries import JobQueries
from services.sync_engine.jobs.read_model import (
    JobFilter,
    JobsProjection,
    PlacedJob,
    destinations_used,
    jobs_where,
    jobs_with_work,
)
from services.sync_engine.jobs.retry_job import RetryJob
from services.sync_engine.jobs.runner import Runner
from services.sync_engine.jobs.scheduler import Scheduler
from services.sync_engine.jobs.verify_run import VerifyRun
from services.sync_engine.jobs.watch import JobWatch
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs import servicer as runs_servicer
from services.sync_engine.runs.adopt import AdoptRun
from services.sync_engine.runs.creation_keeper import CreationKeeper
from services.sync_engine.runs.creation_projection import CreationFiles
from services.sync_engine.runs.location import RunLocator
from services.sync_engine.runs.override_commands import OverrideCommands
from services.sync_engine.runs.queries import RunQueries
from services.sync_engine.runs.read_model import RunsProjection, runs_known
from services.sync_engine.validation import servicer as problems_servicer
from services.sync_engine.validation.presync_gate import PreSyncGate
from services.sync_engine.validation.problems import Problems
from services.sync_engine.validation.walk import ContentScan


def _now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def compose(environment: ServiceEnvironment) -> AsyncIterator[Composition]:
    """Opens the log and the read models, finishes what a crash left undone, and starts the scheduler."""
    settings, logger = environment.settings, environment.logger
    async with AsyncExitStack() as resources:
        store = await open_event_store(environment.settings.event_log.url, environment.name, environment.state_dir)
        resources.push_async_callback(store.close)
        checkpoints = await resources.enter_async_context(
            keeping_checkpoints(
                store, environment.name, environment.state_dir, settings.event_log.checkpoints, environment.logger
            )
        )
        blobs = BlobStore(environment.state_dir / "blobs")
        log = EngineLog(store)
        projections = ProjectionRunner(
            store, EVENT_TYPES, environment.state_dir / "read_models.sqlite3", (JobsProjection(), RunsProjection())
        )
        await projections.start()
        resources.push_async_callback(projections.close)
        locator = RunLocator(settings.equipment)
        files = CreationFiles(log, DEFAULT_LOCK_TIMEOUT)
        scan = ContentScan(
            extensions=frozenset(e.lower() for e in settings.validator.content_scan_extensions),
            max_mib=settings.validator.content_scan_max_mib,
        )
        gate = PreSyncGate(log, files, scan)

        async def jobs_of_run(run: str) -> Sequence[Job]:
            return [p.job for p in await projections.query(lambda c: jobs_where(c, JobFilter(run=run)))]

        bench = Workbench(
            engine_id=str(uuid.uuid4()),
            log=log,
            blobs=blobs,
            locator=locator,
            gate=gate,
            files=files,
            destinations=open_destinations(settings.equipment, await projections.query(destinations_used)),
            board=ProgressBoard(),
            jobs_of_run=jobs_of_run,
            clock=_now,
            jitter=lambda: random.uniform(-1, 1),
            logger=logger,
            executors=_executors({e.id: e.max_parallel for e in settings.equipment}),
        )
        gates = GateWatch()
        runner = Runner(bench, gates)
        scheduler = Scheduler(runner.step, {e.id: e.max_parallel for e in settings.equipment}, _now, logger)
        keeper = CreationKeeper(files, locator, logger)
        news = JobNews(projections)
        resources.push_async_callback(news.close)
        news.listen(lambda placed: scheduler.notice(placed.job, placed.enqueue_position))
        news.listen_to_due(lambda placed: scheduler.consider(placed.job, placed.enqueue_position))
        projections.on_applied(keeper.applied)
        projections.on_applied(_run_events_to(scheduler, gates))
        adopt = AdoptRun(log, locator, _now)
        await adopt.finish_interrupted(logger)
        await _begin_work(projections, runner, scheduler)
        resources.push_async_callback(scheduler.stop)
        resources.callback(runner.stop)
        keeper.start(await projections.query(runs_known))
        resources.push_async_callback(keeper.close)
        queries = RunQueries(log, projections, files, locator, scheduler, _now)
        sync = jobs_servicer.SyncServicer(
            enqueue=Enqueue(bench, keeper),
            adopt=adopt,
            retry=RetryJob(bench),
            verify=VerifyRun(bench),
            watch=JobWatch(projections, news, bench.board, environment.draining),
            jobs=JobQueries(log, projections),
            runs=queries,
            scheduler=scheduler,
        )
        yield Composition(
            services=(
                jobs_servicer.publish(sync),
                runs_servicer.publish(OverrideCommands(log, files, keeper, locator, _now), queries),
                problems_servicer.publish(Problems(projections, locator, scan, _now)),
                publish_event_log(
                    store, EVENT_TYPES, projections, environment.draining, blobs=blobs, checkpoints=checkpoints
                ),
            )
        )


async def _begin_work(projections: ProjectionRunner, runner: Runner, scheduler: Scheduler) -> None:
    """Queues again what was running when the last engine died, and gives the scheduler all that has work to do."""
    placed = await projections.query(jobs_with_work)
    recovered: list[PlacedJob] = []
    for p in placed:
        recovered.append(PlacedJob(await runner.recover(p.job), p.enqueue_position, p.last_position))
    scheduler.start([(p.job, p.enqueue_position) for p in recovered])


def _run_events_to(scheduler: Scheduler, gates: GateWatch) -> Callable[[Sequence[AppliedEvent]], None]:
    """Overrides open and close gates."""

    def applied(batch: Sequence[AppliedEvent]) -> None:
        for event, payload in batch:
            if not event.stream.startswith("run-"):
                continue
            run = event.stream.removeprefix("run-")
            gates.run_changed(run)
            if not isinstance(payload, run_events_pb2.RunSyncStatusChanged):
                scheduler.wake_run(run)

    return applied


def _executors(max_parallel: Mapping[str, int]) -> dict[str, ThreadPoolExecutor]:
    """Threads of each equipment's own: its jobs, and a few for verifications that were asked for."""
    return {
        equipment_id: ThreadPoolExecutor(jobs + 3, thread_name_prefix=equipment_id)
        for equipment_id, jobs in max_parallel.items()
    }
