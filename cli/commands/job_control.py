"""labferry job pause, resume, cancel, retry, prioritize: for one job, or for every job of a scope."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.commands.tables import job_rows
from cli.failure import run_command
from cli.options import ConfigOption, OutputOption, TokenOption, connect
from cli.output import OutputFormat, note, print_message, print_messages, print_table
from labferry.sync.v1 import job_pb2, sync_service_pb2, sync_service_pb2_grpc
from libs.service_kit.identity import ServiceName

_EXAMPLE_JOB = "01990000-0000-7000-8000-000000000000"
_METHODS = {
    sync_service_pb2.JOB_COMMAND_RETRY: ("RetryJob", sync_service_pb2.RetryJobRequest),
    sync_service_pb2.JOB_COMMAND_PAUSE: ("PauseJob", sync_service_pb2.PauseJobRequest),
    sync_service_pb2.JOB_COMMAND_RESUME: ("ResumeJob", sync_service_pb2.ResumeJobRequest),
    sync_service_pb2.JOB_COMMAND_CANCEL: ("CancelJob", sync_service_pb2.CancelJobRequest),
    sync_service_pb2.JOB_COMMAND_SET_PRIORITY: ("SetJobPriority", sync_service_pb2.SetJobPriorityRequest),
}

JobArgument = Annotated[str, typer.Argument(help="One job; else give a scope.", show_default=False)]
RunScope = Annotated[str, typer.Option("--run", help="Every job of this run.")]
EquipmentScope = Annotated[str, typer.Option("--equipment", help="Every job of this equipment.")]
AllScope = Annotated[bool, typer.Option("--all", help="Every job there is.")]
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the log.", show_default=False)]


def pause(
    reason: ReasonOption,
    job_id: JobArgument = "",
    run: RunScope = "",
    equipment: EquipmentScope = "",
    everything: AllScope = False,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Hold jobs that aren't verified yet; one in work ends at its next block."""
    request = _request(sync_service_pb2.JOB_COMMAND_PAUSE, reason, job_id, run, equipment, everything)
    _steer(request, job_id, output, config, token_file)


def resume(
    reason: ReasonOption,
    job_id: JobArgument = "",
    run: RunScope = "",
    equipment: EquipmentScope = "",
    everything: AllScope = False,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Let paused jobs go on where they were."""
    request = _request(sync_service_pb2.JOB_COMMAND_RESUME, reason, job_id, run, equipment, everything)
    _steer(request, job_id, output, config, token_file)


def cancel(
    reason: ReasonOption,
    job_id: JobArgument = "",
    run: RunScope = "",
    equipment: EquipmentScope = "",
    everything: AllScope = False,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """End jobs that aren't verified yet; files that have landed stay, temporary ones are removed."""
    request = _request(sync_service_pb2.JOB_COMMAND_CANCEL, reason, job_id, run, equipment, everything)
    _steer(request, job_id, output, config, token_file)


def retry(
    reason: ReasonOption,
    job_id: JobArgument = "",
    run: RunScope = "",
    equipment: EquipmentScope = "",
    everything: AllScope = False,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Arm failed jobs again."""
    request = _request(sync_service_pb2.JOB_COMMAND_RETRY, reason, job_id, run, equipment, everything)
    _steer(request, job_id, output, config, token_file)


def prioritize(
    priority: Annotated[
        int, typer.Option(min=-1000, max=1000, help="0 at first; the highest goes first.", show_default=False)
    ],
    reason: ReasonOption,
    job_id: JobArgument = "",
    run: RunScope = "",
    equipment: EquipmentScope = "",
    everything: AllScope = False,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Set the priority among the jobs of an equipment; jobs in work are not disturbed."""
    request = _request(sync_service_pb2.JOB_COMMAND_SET_PRIORITY, reason, job_id, run, equipment, everything)
    request.priority = priority
    _steer(request, job_id, output, config, token_file)


def add_to(app: typer.Typer) -> None:
    """Makes the commands known to `labferry job`."""
    example = "Example: labferry job"
    app.command(epilog=f'{example} pause --run EQUIPMENT/project/Runs/Run_2026-04-17T14-32 --reason "not yet"')(pause)
    app.command(epilog=f'{example} resume {_EXAMPLE_JOB} --reason "the NAS is free"')(resume)
    app.command(epilog=f'{example} cancel {_EXAMPLE_JOB} --reason "the wrong run"')(cancel)
    app.command(epilog=f'{example} retry --equipment CONFOCAL_01 --reason "NAS is back"')(retry)
    app.command(epilog=f'{example} prioritize {_EXAMPLE_JOB} --priority 10 --reason "for the review"')(prioritize)


def _request(
    command: sync_service_pb2.JobCommand.ValueType, reason: str, job_id: str, run: str, equipment: str, everything: bool
) -> sync_service_pb2.SteerJobsRequest:
    if sum(map(bool, (job_id, run, equipment, everything))) != 1:
        raise typer.BadParameter("give one of JOB_ID, --run, --equipment and --all")
    request = sync_service_pb2.SteerJobsRequest(command=command, reason=reason)
    if run:
        request.run = run
    elif equipment:
        request.equipment_id = equipment
    elif everything:
        request.all = True
    return request


def _steer(
    request: sync_service_pb2.SteerJobsRequest, job_id: str, output: OutputFormat, config: Any, token_file: Any
) -> None:
    async def work() -> None:
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            stub = sync_service_pb2_grpc.SyncServiceStub(channel)
            if job_id:
                job = await _one(stub, job_id, request)
                if output is OutputFormat.JSON:
                    print_message(job)
                else:
                    print_table(*job_rows([job]))
                return
            jobs = [job async for job in stub.SteerJobs(request)]
        if output is OutputFormat.JSON:
            print_messages(jobs)
        elif jobs:
            print_table(*job_rows(jobs))
        else:
            note("no job there is in a state for that")

    run_command(work())


async def _one(stub: Any, job_id: str, request: sync_service_pb2.SteerJobsRequest) -> job_pb2.Job:
    method, kind = _METHODS[request.command]
    one: Any = kind(job_id=job_id, reason=request.reason)
    if isinstance(one, sync_service_pb2.SetJobPriorityRequest):
        one.priority = request.priority
    job: job_pb2.Job = await getattr(stub, method)(one)
    return job
