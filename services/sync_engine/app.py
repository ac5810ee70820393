"""The composition root of the sync engine."""

from __future__ import annotations

import random
import socket
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime

from libs.event_log.blob_store import BlobStore
from libs.event_log.checkpoint_keeper import keeping_checkpoints
from libs.event_log.log_metrics import LogMetrics
from libs.event_log.open_store import open_event_store
from libs.event_log.projection import ProjectionRunner
from libs.event_log.published import publish_event_log
from libs.event_log.refused_calls import RefusedCalls
from libs.run_tree.record_lock import DEFAULT_LOCK_TIMEOUT
from libs.service_kit.run import Composition, ServiceEnvironment
from libs.service_kit.settings import SQLITE
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.after_proof import after_proof, pass_rules
from services.sync_engine.audits.read_again import ReadAgain
from services.sync_engine.audits.read_model import CopiesProjection
from services.sync_engine.copies_apart import CopiesApart
from services.sync_engine.destinations import open_destinations, report_missing_tools
from services.sync_engine.engine_log import EngineLog
from services.sync_engine.equipment import servicer as equipment_servicer
from services.sync_engine.equipment.pause_command import PauseEquipment
from services.sync_engine.equipment.pauses import EquipmentPauses
from services.sync_engine.equipment.read_model import EquipmentProjection, paused_equipment
from services.sync_engine.equipment.status import EquipmentStatuses
from services.sync_engine.errors import as_labferry_error
from services.sync_engine.event_types import EVENT_TYPES
from services.sync_engine.jobs import servicer as jobs_servicer
from services.sync_engine.jobs.accept_change import AcceptChange
from services.sync_engine.jobs.destination_watch import DestinationWatch
from services.sync_engine.jobs.enqueue import Enqueue
from services.sync_engine.jobs.enqueue_many import EnqueueMany
from services.sync_engine.jobs.file_list import sent_among
from services.sync_engine.jobs.gate_watch import GateWatch
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.messages import JobMessages
from services.sync_engine.jobs.news import JobNews
from services.sync_engine.jobs.ownership import LeasedOwnership, LeaseTerms, Ownership, SoleOwnership
from services.sync_engine.jobs.progress import ProgressBoard
from services.sync_engine.jobs.queries import JobQueries
from services.sync_engine.jobs.read_model import (
    JobFilter,
    JobsProjection,
    destinations_used,
    jobs_failed,
    jobs_running,
    jobs_where,
)
from services.sync_engine.jobs.runner import Runner
from services.sync_engine.jobs.scheduler import Scheduler
from services.sync_engine.jobs.steer import SteerJobs
from services.sync_engine.jobs.verify_run import VerifyRun
from services.sync_engine.jobs.waiting import WaitingOn
from services.sync_engine.jobs.wakes import pausing, waking_by_run_events
from services.sync_engine.jobs.watch import JobWatch
from services.sync_engine.jobs.work import all_work, work_of
from services.sync_engine.jobs.work_in_hand import WorkInHand
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.lims.follow_gateway import following_gateway
from services.sync_engine.lims.known_projects import KnownLimsProjects
from services.sync_engine.receipts.issue import ReceiptIssuer
from services.sync_engine.run_log.keeper import RunLogKeeper
from services.sync_engine.runs import servicer as runs_servicer
from services.sync_engine.runs.adopt import AdoptRun
from services.sync_engine.runs.creation_keeper import CreationKeeper
from services.sync_engine.runs.creation_projection import CreationFiles
from services.sync_engine.runs.location import RunLocator
from services.sync_engine.runs.override_commands import OverrideCommands
from services.sync_engine.runs.queries import RunQueries
from services.sync_engine.runs.read_model import RunsProjection, runs_known
from services.sync_engine.secrets.opened import open_secrets
from services.sync_engine.staging import servicer as staging_servicer
from services.sync_engine.staging.ingest_mirror import IngestMirror
from services.sync_engine.staging.opened import staging
from services.sync_engine.staging.read_model import StagingProjection
from services.sync_engine.staging.steps import StagingSteps
from services.sync_engine.targets.keeper import TargetKeeper
from services.sync_engine.transfer.private_folder import remove_orphans
from services.sync_engine.transfer.second_process.process import SecondProcess
from services.sync_engine.transfer.spilled_list import spill_into
from services.sync_engine.transfer.transfer_control import StopReason
from services.sync_engine.validation import servicer as problems_servicer
from services.sync_engine.validation.content_scan import ContentScan
from services.sync_engine.validation.presync_gate import PreSyncGate
from services.sync_engine.validation.problem_watch import ProblemWatch
from services.sync_engine.validation.problems import FromOutside, Problems
from services.sync_engine.validation.walk import AuditRules


def _now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def compose(environment: ServiceEnvironment) -> AsyncIterator[Composition]:
    """Opens the log and the read models, finishes what a crash left undone, and starts the scheduler."""
    settings, logger = environment.settings, environment.logger
    async with AsyncExitStack() as resources:
        store = await open_event_store(settings.event_log.url, environment.name, environment.state_dir)
        resources.push_async_callback(store.close)
        refused = RefusedCalls(store, logger)
        resources.push_async_callback(refused.close)
        checkpoints = await resources.enter_async_context(
            keeping_checkpoints(store, environment.name, environment.state_dir, settings.event_log.checkpoints, logger)
        )
        blobs = BlobStore(settings.blobs_of(environment.name))
        spill_into(environment.state_dir)
        shared = settings.event_log.url != SQLITE
        log = EngineLog(store, shared=shared)
        secrets = await resources.enter_async_context(open_secrets(environment))
        projections = ProjectionRunner(
            store,
            EVENT_TYPES,
            environment.state_dir / "read_models.sqlite3",
            (JobsProjection(), RunsProjection(), EquipmentProjection(), CopiesProjection(), StagingProjection()),
            stopped=lambda failure: logger.error("projection_stopped", **asdict(failure)),
        )
        await projections.start()
        resources.push_async_callback(projections.close)
        threads = WorkThreads("engine")
        resources.callback(threads.close)
        locator = RunLocator(settings.equipment, settings.orchestrator.staging_folder)
        files = CreationFiles(log, DEFAULT_LOCK_TIMEOUT, threads)
        rules = AuditRules(
            ContentScan(
                extensions=frozenset(e.lower() for e in settings.validator.content_scan_extensions),
                max_mib=settings.validator.content_scan_max_mib,
            ),
            required_fields=frozenset(f.id for f in settings.readme.defaults if f.required),
        )

        async def jobs_of_run(run: str) -> Sequence[Job]:
            return [p.job for p in await projections.query(lambda c: jobs_where(c, JobFilter(run=run)))]

        used = await projections.query(destinations_used)
        apart = CopiesApart(settings.equipment, settings.orchestrator.staging_folder)
        await apart.refuse_at_start(threads)
        second = SecondProcess()
        resources.push_async_callback(threads.run, second.close)
        destinations = open_destinations(settings.equipment, used, settings.verify, secrets.loans.lent, apart, second)
        await threads.run(remove_orphans)
        await report_missing_tools(destinations, threads, logger)
        watch = DestinationWatch(threads, _now, logger, settings.transfer.stall_timeout)
        resources.push_async_callback(watch.close)
        engine_id, host = str(uuid.uuid4()), socket.gethostname()
        mirror = IngestMirror(threads, logger)
        steps = StagingSteps(log, projections, locator, threads, mirror, host)
        in_hand = WorkInHand(threads, settings.transfer.stall_timeout)
        slots = {e.id: e.max_parallel for e in settings.equipment}
        owned: Ownership = SoleOwnership()
        if shared:
            owned = LeasedOwnership(
                store.leases,
                engine_id,
                lambda equipment_id: slots.get(equipment_id, 1),
                lambda job_id: in_hand.stop(job_id, StopReason.LEASE_LOST),
                logger,
                LeaseTerms(settings.transfer.lease_seconds),
            )
        bench = Workbench(
            engine_id=engine_id,
            log=log,
            blobs=blobs,
            locator=locator,
            gate=PreSyncGate(log, files, locator, rules, threads),
            files=files,
            destinations=destinations,
            watch=watch,
            board=ProgressBoard(),
            threads=threads,
            owned=owned,
            why_suspected=lambda equipment_id, name: targets.why_suspected(equipment_id, name),
            doubt=lambda job, paths: targets.doubt(job, paths),
            before_seal=steps.follow,
            receipts=ReceiptIssuer(log, checkpoints.key.private, jobs_of_run, _now),
            jobs_of_run=jobs_of_run,
            clock=_now,
            jitter=lambda: random.uniform(-1, 1),
            logger=logger,
        )
        gates = GateWatch()
        runner = Runner(bench, gates, in_hand)
        pauses = await projections.query(paused_equipment)
        scheduler = Scheduler(
            runner.step,
            slots,
            _now,
            logger,
            in_all=settings.transfer.max_parallel,
            paused=pauses,
        )
        watch.on_back(scheduler.wake_destination)

        async def sent(job: Job, paths: Sequence[str]) -> Sequence[str]:
            return await threads.run(lambda: sent_among(blobs, job, paths))

        targets = TargetKeeper(log, destinations, logger, scheduler.wake_destination, sent)
        resources.push_async_callback(targets.close)
        await targets.start(p.job for p in await projections.query(jobs_failed))
        projections.on_applied(targets.applied)
        held = EquipmentPauses(pauses, pausing(scheduler, in_hand))
        keeper = CreationKeeper(log, files, locator, logger)
        news = JobNews(projections)
        resources.push_async_callback(news.close)
        news.listen(lambda placed: scheduler.notice(work_of(placed, _now())))
        news.listen(lambda placed: runner.heed(placed.job))
        news.listen_to_due(lambda placed: scheduler.notice(work_of(placed, _now())))
        projections.on_applied(keeper.applied)
        projections.on_applied(held.applied)
        projections.on_applied(waking_by_run_events(scheduler, gates))
        adopt = AdoptRun(log, locator, _now, logger)
        await adopt.finish_interrupted()
        for placed in await projections.query(jobs_running):
            await runner.recover(placed.job)
        scheduler.start(await projections.query(lambda c: all_work(c, _now())))

        async def drain() -> None:
            await runner.drain(scheduler.stop(), settings.transfer.drain_timeout)

        resources.push_async_callback(drain)
        keeper.start(await projections.query(runs_known))
        resources.push_async_callback(keeper.close)
        run_logs = RunLogKeeper(
            log,
            projections,
            locator,
            threads,
            logger,
            mark_file=environment.state_dir / "run_logs.json",
            hostname=host,
            engine_id=engine_id,
            leases=store.leases if shared else None,
        )
        projections.on_applied(run_logs.applied)
        run_logs.start()
        resources.push_async_callback(run_logs.close)
        messages = JobMessages(WaitingOn(scheduler, watch, held.wait_of, bench.destination), bench)
        read_again = ReadAgain(projections, bench, scheduler.slot, pass_rules(settings).interval)
        queries = RunQueries(log, projections, files, locator, messages, threads, _now, read_again)
        enqueue = Enqueue(bench, keeper)
        proof = await resources.enter_async_context(after_proof(bench, settings, projections, news, scheduler, in_hand))
        staged = await resources.enter_async_context(
            staging(bench, settings.orchestrator, projections, enqueue, proof.clean, steps, mirror)
        )
        sync = jobs_servicer.SyncServicer(
            enqueue=enqueue,
            enqueue_many=EnqueueMany(enqueue),
            adopt=adopt,
            steer=SteerJobs(bench, projections),
            accept=AcceptChange(bench),
            verify=VerifyRun(bench, in_hand),
            watch=JobWatch(projections, news, bench.board, environment.draining),
            jobs=JobQueries(log, projections),
            runs=queries,
            messages=messages,
            proof=proof,
        )
        lims_projects = KnownLimsProjects()
        outside = FromOutside(
            targets.suspected, bench.why_unmended, read_again.of, lims_projects.matches, secrets.dates.overdue
        )
        problems = Problems(projections, locator, rules, threads, _now, outside)
        problem_watch = ProblemWatch(problems.query, as_labferry_error, environment.draining, logger)
        await resources.enter_async_context(following_gateway(environment, lims_projects, problem_watch.news))
        await resources.enter_async_context(secrets.following(problem_watch.news, projections, scheduler))
        projections.on_applied(lambda _: problem_watch.news())
        resources.push_async_callback(problem_watch.close)
        equipment = equipment_servicer.EquipmentServicer(
            EquipmentStatuses(projections, locator, destinations, watch, threads, _now, targets.target),
            PauseEquipment(log, projections, locator),
            targets,
        )
        yield Composition(
            services=(
                jobs_servicer.publish(sync),
                equipment_servicer.publish(equipment),
                runs_servicer.publish(OverrideCommands(log, files, keeper, locator, _now), queries),
                problems_servicer.publish(problems, problem_watch, rules),
                staging_servicer.publish(staged),
                publish_event_log(
                    store, EVENT_TYPES, projections, environment.draining, blobs=blobs, checkpoints=checkpoints
                ),
            ),
            note_refusal=refused.note,
            collectors=(LogMetrics(store, projections),),
        )
