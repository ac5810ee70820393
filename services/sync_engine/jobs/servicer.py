"""labferry.sync.v1.SyncService: translation between protobuf and the jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from labferry.sync.v1 import job_pb2, run_pb2, sync_service_pb2, sync_service_pb2_grpc
from libs.run_tree.run_path import RunKind, project_name_problem
from libs.service_kit.enum_names import ProtoNames
from libs.service_kit.identity import OPERATORS, READERS
from libs.service_kit.server import PublishedService
from services.sync_engine.jobs.enqueue import Enqueue, EnqueueOutcome
from services.sync_engine.jobs.job import JOB_STATES, JobState
from services.sync_engine.jobs.messages import job_message, progress_message
from services.sync_engine.jobs.progress import ProgressSnapshot
from services.sync_engine.jobs.queries import JobQueries
from services.sync_engine.jobs.read_model import JobFilter
from services.sync_engine.jobs.retry_job import RetryJob
from services.sync_engine.jobs.scheduler import Scheduler
from services.sync_engine.jobs.verify_run import VerifyRun
from services.sync_engine.jobs.watch import JobWatch, WatchedJob
from services.sync_engine.requests import Fields, cause, request_key
from services.sync_engine.runs.adopt import Adoption, AdoptRun
from services.sync_engine.runs.queries import RunQueries
from services.sync_engine.runs.run_kinds import RUN_KINDS
from services.sync_engine.validation.finding_messages import finding_message

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]

FULL_NAME = "labferry.sync.v1.SyncService"
_OUTCOMES = ProtoNames(EnqueueOutcome, sync_service_pb2.EnqueueOutcome, "ENQUEUE_OUTCOME")


class SyncServicer(sync_service_pb2_grpc.SyncServiceServicer):
    """Queueing, showing, watching and verifying."""

    def __init__(
        self,
        *,
        enqueue: Enqueue,
        adopt: AdoptRun,
        retry: RetryJob,
        verify: VerifyRun,
        watch: JobWatch,
        jobs: JobQueries,
        runs: RunQueries,
        scheduler: Scheduler,
    ) -> None:
        self._enqueue = enqueue
        self._adopt = adopt
        self._retry = retry
        self._verify = verify
        self._watch = watch
        self._jobs = jobs
        self._runs = runs
        self._scheduler = scheduler

    async def EnqueueRun(
        self, request: sync_service_pb2.EnqueueRunRequest, context: Context
    ) -> sync_service_pb2.EnqueueRunResponse:
        fields = Fields()
        fields.run(request.run)
        fields.reason(request.reason, required=False)
        fields.request_id(request.request_id)
        fields.done()
        key = request_key("EnqueueRun", request.request_id, request)
        answer = await self._enqueue.run(request.run, cause(request.reason), key)
        jobs = [job_message(job, self._scheduler) for job in answer.jobs]
        return sync_service_pb2.EnqueueRunResponse(
            outcome=_OUTCOMES.to_proto(answer.outcome),
            job=jobs[0] if jobs else None,
            jobs=jobs,
            blocking_findings=[finding_message(f) for f in answer.blocking],
        )

    async def AdoptRun(self, request: sync_service_pb2.AdoptRunRequest, context: Context) -> run_pb2.Run:
        fields = Fields()
        if not request.source_folder:
            fields.wrong("source_folder", "is required: the absolute path of the folder to adopt")
        if not request.equipment_id:
            fields.wrong("equipment_id", "is required")
        problem = project_name_problem(request.project)
        if problem is not None:
            fields.wrong("project", problem)
        fields.operator(request.operator)
        fields.request_id(request.request_id)
        kind = RUN_KINDS.get(request.run_kind) if request.run_kind else RunKind.EXPERIMENTAL
        if kind is None:
            fields.wrong("run_kind", f"{request.run_kind} is not a known value")
        started = None
        if request.HasField("started_time"):
            started = fields.time(request.started_time, "started_time")
        fields.done()
        adoption = Adoption(
            source_folder=request.source_folder,
            equipment_id=request.equipment_id,
            project=request.project,
            kind=kind or RunKind.EXPERIMENTAL,
            started=started,
            operator=request.operator,
        )
        run = await self._adopt.adopt(adoption, cause(), request_key("AdoptRun", request.request_id, request))
        return await self._runs.run(run, None)

    async def GetJob(self, request: sync_service_pb2.GetJobRequest, context: Context) -> job_pb2.Job:
        fields = Fields()
        fields.uuid(request.job_id, "job_id")
        fields.done()
        if request.HasField("as_of"):
            position = await self._runs.position_of(request.as_of)
            return job_message(await self._jobs.job(request.job_id, upto_position=position))
        return job_message(await self._jobs.job(request.job_id), self._scheduler)

    async def ListJobs(
        self, request: sync_service_pb2.ListJobsRequest, context: Context
    ) -> sync_service_pb2.ListJobsResponse:
        fields = Fields()
        size = fields.page_size(request.page_size)
        states: list[JobState] = []
        for value in request.states:
            state = JOB_STATES.get(value)
            fields.enum(value, state, "states")
            if state is not None:
                states.append(state)
        fields.done()
        wanted = JobFilter(
            run=request.run, equipment_id=request.equipment_id, destination=request.destination, states=states
        )
        page = await self._jobs.page(wanted, size, request.page_token)
        return sync_service_pb2.ListJobsResponse(
            jobs=[job_message(job, self._scheduler) for job in page.jobs], next_page_token=page.next_page_token
        )

    async def WatchJobs(
        self, request: sync_service_pb2.WatchJobsRequest, context: Context
    ) -> AsyncIterator[sync_service_pb2.JobUpdate]:
        fields = Fields()
        for job_id in request.job_ids:
            fields.uuid(job_id, "job_ids")
        fields.done()
        wanted = JobFilter(
            job_ids=tuple(request.job_ids),
            run=request.run,
            equipment_id=request.equipment_id,
            changed_after=self._jobs.resume_position(request.resume_token),
        )
        async for update in self._watch.follow(wanted):
            yield self._update(update)

    def _update(self, update: WatchedJob) -> sync_service_pb2.JobUpdate:
        progress = None if update.progress is None else progress_message(update.progress)
        return sync_service_pb2.JobUpdate(
            job=job_message(update.placed.job, self._scheduler),
            progress=progress,
            resume_token=self._jobs.resume_token(update.placed.last_position),
        )

    async def RetryJob(self, request: sync_service_pb2.RetryJobRequest, context: Context) -> job_pb2.Job:
        fields = Fields()
        fields.uuid(request.job_id, "job_id")
        fields.reason(request.reason, required=True)
        fields.done()
        return job_message(await self._retry.retry(request.job_id, cause(request.reason)), self._scheduler)

    async def VerifyRun(
        self, request: sync_service_pb2.VerifyRunRequest, context: Context
    ) -> AsyncIterator[sync_service_pb2.VerifyUpdate]:
        fields = Fields()
        fields.run(request.run)
        fields.reason(request.reason, required=False)
        fields.done()
        destination = request.destination if request.HasField("destination") else None
        async for update in self._verify.verify(request.run, destination, cause(request.reason)):
            if isinstance(update, ProgressSnapshot):
                yield sync_service_pb2.VerifyUpdate(progress=progress_message(update))
            else:
                yield sync_service_pb2.VerifyUpdate(report=update)


def publish(servicer: SyncServicer) -> PublishedService:
    return PublishedService(
        full_name=FULL_NAME,
        servicer=servicer,
        add_to_server=sync_service_pb2_grpc.add_SyncServiceServicer_to_server,
        roles={
            "EnqueueRun": OPERATORS,
            "AdoptRun": OPERATORS,
            "GetJob": READERS,
            "ListJobs": READERS,
            "WatchJobs": READERS,
            "RetryJob": OPERATORS,
            "VerifyRun": OPERATORS,
        },
        unbounded=frozenset({"AdoptRun", "EnqueueRun"}),
    )
