"""labferry.sync.v1.SyncService: translation between protobuf and the jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from labferry.sync.v1 import job_pb2, run_pb2, sync_service_pb2, sync_service_pb2_grpc
from libs.run_tree.run_path import RunKind, project_name_problem
from libs.service_kit.enum_names import ProtoNames
from libs.service_kit.errors import LabferryError
from libs.service_kit.identity import OPERATORS, READERS
from libs.service_kit.server import PublishedService
from services.sync_engine.jobs.accept_change import Acceptance, AcceptChange
from services.sync_engine.jobs.commands import JOB_COMMANDS, MOST_PRIORITY, JobCommand
from services.sync_engine.jobs.enqueue import Enqueue, EnqueueOutcome
from services.sync_engine.jobs.enqueue_many import EnqueueMany, RunAnswer
from services.sync_engine.jobs.failure import differing_message
from services.sync_engine.jobs.job import JOB_STATES, JobState
from services.sync_engine.jobs.messages import JobMessages, job_message, progress_message
from services.sync_engine.jobs.progress import ProgressSnapshot
from services.sync_engine.jobs.queries import JobQueries
from services.sync_engine.jobs.read_model import JobFilter
from services.sync_engine.jobs.steer import SteerJobs
from services.sync_engine.jobs.verify_run import VerifyRun
from services.sync_engine.jobs.waiting import recorded_waits
from services.sync_engine.jobs.watch import JobWatch, WatchedJob
from services.sync_engine.proof_methods import ProofMethods, ProofParts
from services.sync_engine.requests import Fields, cause, request_key
from services.sync_engine.runs.adopt import Adoption, AdoptRun
from services.sync_engine.runs.queries import RunQueries
from services.sync_engine.runs.run import AcceptedChange
from services.sync_engine.runs.run_kinds import RUN_KINDS
from services.sync_engine.runs.verified_tree import RefusedChange
from services.sync_engine.transfer.transport import DifferingFile
from services.sync_engine.validation.finding_messages import finding_message

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]

FULL_NAME = "labferry.sync.v1.SyncService"
_MOST_RUNS = 10_000
_OUTCOMES = ProtoNames(EnqueueOutcome, sync_service_pb2.EnqueueOutcome, "ENQUEUE_OUTCOME")


class SyncServicer(ProofMethods):
    """Queueing, showing, watching and verifying."""

    def __init__(
        self,
        *,
        enqueue: Enqueue,
        adopt: AdoptRun,
        enqueue_many: EnqueueMany,
        steer: SteerJobs,
        accept: AcceptChange,
        verify: VerifyRun,
        watch: JobWatch,
        jobs: JobQueries,
        runs: RunQueries,
        messages: JobMessages,
        proof: ProofParts,
    ) -> None:
        super().__init__(proof)
        self._enqueue = enqueue
        self._enqueue_many = enqueue_many
        self._adopt = adopt
        self._steer = steer
        self._accept = accept
        self._verify = verify
        self._watch = watch
        self._jobs = jobs
        self._runs = runs
        self._messages = messages

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
        return self._enqueued(RunAnswer(request.run, enqueued=answer))

    async def EnqueueRuns(
        self, request: sync_service_pb2.EnqueueRunsRequest, context: Context
    ) -> AsyncIterator[sync_service_pb2.EnqueueRunResponse]:
        fields = Fields()
        if not 1 <= len(request.runs) <= _MOST_RUNS:
            fields.wrong("runs", f"must hold 1 to {_MOST_RUNS} runs")
        for run in request.runs:
            fields.run(run, "runs")
        fields.reason(request.reason, required=False)
        fields.request_id(request.request_id)
        fields.done()
        key = request_key("EnqueueRuns", request.request_id, request)
        async with aclosing(self._enqueue_many.run(request.runs, cause(request.reason), key)) as answers:
            async for answer in answers:
                yield self._enqueued(answer)

    def _enqueued(self, answer: RunAnswer) -> sync_service_pb2.EnqueueRunResponse:
        message = sync_service_pb2.EnqueueRunResponse(run=answer.run)
        if answer.error is not None:
            message.error.CopyFrom(_enqueue_error(answer.error))
        if answer.enqueued is not None:
            jobs = [self._messages.of(job) for job in answer.enqueued.jobs]
            message.outcome = _OUTCOMES.to_proto(answer.enqueued.outcome)
            message.jobs.extend(jobs)
            if jobs:
                message.job.CopyFrom(jobs[0])
            message.blocking_findings.extend(finding_message(f) for f in answer.enqueued.blocking)
            message.changed_files.extend(_changed_file(change) for change in answer.enqueued.changes)
        return message

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
        fields.as_of(request.as_of)
        fields.done()
        if request.HasField("as_of"):
            position = await self._runs.position_of(request.as_of)
            earlier = await self._jobs.job(request.job_id, upto_position=position)
            return job_message(earlier, recorded_waits(earlier))
        return self._messages.of(await self._jobs.job(request.job_id))

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
            jobs=[self._messages.of(job) for job in page.jobs], next_page_token=page.next_page_token
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
            job=self._messages.of(update.placed.job),
            progress=progress,
            resume_token=self._jobs.resume_token(update.placed.last_position),
        )

    async def RetryJob(self, request: sync_service_pb2.RetryJobRequest, context: Context) -> job_pb2.Job:
        return await self._one(request.job_id, JobCommand.RETRY, request.reason)

    async def PauseJob(self, request: sync_service_pb2.PauseJobRequest, context: Context) -> job_pb2.Job:
        return await self._one(request.job_id, JobCommand.PAUSE, request.reason)

    async def ResumeJob(self, request: sync_service_pb2.ResumeJobRequest, context: Context) -> job_pb2.Job:
        return await self._one(request.job_id, JobCommand.RESUME, request.reason)

    async def CancelJob(self, request: sync_service_pb2.CancelJobRequest, context: Context) -> job_pb2.Job:
        return await self._one(request.job_id, JobCommand.CANCEL, request.reason)

    async def SetJobPriority(self, request: sync_service_pb2.SetJobPriorityRequest, context: Context) -> job_pb2.Job:
        return await self._one(request.job_id, JobCommand.SET_PRIORITY, request.reason, request.priority)

    async def _one(self, job_id: str, command: JobCommand, reason: str, priority: int = 0) -> job_pb2.Job:
        fields = Fields()
        fields.uuid(job_id, "job_id")
        fields.reason(reason, required=True)
        _check_priority(fields, priority)
        fields.done()
        return self._messages.of(await self._steer.one(job_id, command, cause(reason), priority))

    async def SteerJobs(
        self, request: sync_service_pb2.SteerJobsRequest, context: Context
    ) -> AsyncIterator[job_pb2.Job]:
        fields = Fields()
        command = JOB_COMMANDS.get(request.command)
        fields.enum(request.command, command, "command")
        fields.reason(request.reason, required=True)
        _check_priority(fields, request.priority)
        match request.WhichOneof("scope"):
            case "run":
                fields.run(request.run)
            case "equipment_id":
                fields.equipment(request.equipment_id)
            case "all" if request.all:
                pass
            case _:
                fields.wrong("scope", "is required: run, equipment_id, or all")
        fields.done()
        wanted = JobFilter(run=request.run, equipment_id=request.equipment_id)
        changed = self._steer.all_of(wanted, command or JobCommand.RETRY, cause(request.reason), request.priority)
        async with aclosing(changed) as jobs:
            async for job in jobs:
                yield self._messages.of(job)

    async def AcceptChange(
        self, request: sync_service_pb2.AcceptChangeRequest, context: Context
    ) -> sync_service_pb2.AcceptChangeResponse:
        fields = Fields()
        path = request.path_bytes or request.path.encode()
        fields.run(request.run)
        fields.path_in_run(path)
        fields.sha256(request.old_sha256, "old_sha256", required=True)
        fields.sha256(request.new_sha256, "new_sha256", required=False)
        fields.operator(request.operator)
        fields.reason(request.reason, required=True)
        fields.request_id(request.request_id)
        fields.done()
        acceptance = Acceptance(
            run=request.run,
            change=AcceptedChange(request.destination, path, request.old_sha256, request.new_sha256),
            operator=request.operator,
        )
        key = request_key("AcceptChange", request.request_id, request)
        rearmed = await self._accept.accept(acceptance, cause(request.reason), key)
        return sync_service_pb2.AcceptChangeResponse(rearmed_jobs=[self._messages.of(job) for job in rearmed])

    async def VerifyRun(
        self, request: sync_service_pb2.VerifyRunRequest, context: Context
    ) -> AsyncIterator[sync_service_pb2.VerifyUpdate]:
        fields = Fields()
        fields.run(request.run)
        fields.reason(request.reason, required=False)
        most = request.max_stream_bytes if request.HasField("max_stream_bytes") else None
        if most is not None and most < 1:
            fields.wrong("max_stream_bytes", "must be at least 1")
        fields.done()
        destination = request.destination if request.HasField("destination") else None
        async for update in self._verify.verify(request.run, destination, cause(request.reason), most):
            if isinstance(update, ProgressSnapshot):
                yield sync_service_pb2.VerifyUpdate(progress=progress_message(update))
            else:
                yield sync_service_pb2.VerifyUpdate(report=update)


def _check_priority(fields: Fields, priority: int) -> None:
    if not -MOST_PRIORITY <= priority <= MOST_PRIORITY:
        fields.wrong("priority", f"must be -{MOST_PRIORITY} to {MOST_PRIORITY}")


def _changed_file(change: RefusedChange) -> sync_service_pb2.VerifiedFileChange:
    file = DifferingFile(change.file.path, change.file.old_sha256, change.file.new_sha256)
    return sync_service_pb2.VerifiedFileChange(file=differing_message(file), destinations=change.destinations)


def _enqueue_error(error: LabferryError) -> sync_service_pb2.EnqueueError:
    return sync_service_pb2.EnqueueError(
        code=error.code.value[0], message=error.message, reason=error.reason.name, metadata=error.metadata
    )


def publish(servicer: SyncServicer) -> PublishedService:
    return PublishedService(
        full_name=FULL_NAME,
        servicer=servicer,
        add_to_server=sync_service_pb2_grpc.add_SyncServiceServicer_to_server,
        roles={
            "EnqueueRun": OPERATORS,
            "EnqueueRuns": OPERATORS,
            "AdoptRun": OPERATORS,
            "GetJob": READERS,
            "ListJobs": READERS,
            "WatchJobs": READERS,
            "RetryJob": OPERATORS,
            "PauseJob": OPERATORS,
            "ResumeJob": OPERATORS,
            "CancelJob": OPERATORS,
            "SetJobPriority": OPERATORS,
            "SteerJobs": OPERATORS,
            "AcceptChange": OPERATORS,
            "VerifyRun": OPERATORS,
            "CleanRun": OPERATORS,
            "GetReceipt": READERS,
            "ListEvidence": READERS,
            "GetManifest": READERS,
        },
        unbounded=frozenset({"AdoptRun", "EnqueueRun", "AcceptChange", "CleanRun"}),
    )
