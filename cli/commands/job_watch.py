"""labferry job watch: follows jobs with a progress bar."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from cli.commands.tables import job_rows
from cli.failure import EXIT_NO, run_command
from cli.json_form import short_name
from cli.options import ConfigOption, OutputOption, TokenOption, connect
from cli.output import OutputFormat, errors, note, print_message, print_table
from labferry.sync.v1 import job_pb2, sync_service_pb2, sync_service_pb2_grpc
from libs.service_kit.identity import ServiceName

_STATE = job_pb2.JobState.DESCRIPTOR
_GOOD_ENDS = {job_pb2.JOB_STATE_VERIFIED, job_pb2.JOB_STATE_CLEANUP_ELIGIBLE, job_pb2.JOB_STATE_CLEANED}
_BAD_ENDS = {job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED}


def watch(
    job_id: Annotated[list[str] | None, typer.Argument(help="Only these jobs.", show_default=False)] = None,
    run: Annotated[str, typer.Option(help="Only of this run.")] = "",
    equipment: Annotated[str, typer.Option(help="Only of this equipment.")] = "",
    until_done: Annotated[
        bool, typer.Option("--until-done/--forever", help="End when every job shown is sealed, failed or cancelled.")
    ] = True,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Follow jobs with a progress bar. Exit status 1 when one of them failed."""

    async def work() -> int:
        request = sync_service_pb2.WatchJobsRequest(job_ids=job_id or (), run=run, equipment_id=equipment)
        jobs: dict[str, job_pb2.Job] = {}
        bars: dict[str, TaskID] = {}
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            stub = sync_service_pb2_grpc.SyncServiceStub(channel)
            for one in job_id or ():
                await stub.GetJob(sync_service_pb2.GetJobRequest(job_id=one))
            if until_done and not await _any_job(stub, run, equipment):
                note("there is no such job to wait for; --forever waits until there is one")
                return EXIT_NO
            with _progress() as progress:
                async for update in stub.WatchJobs(request):
                    jobs[update.job.job_id] = update.job
                    if output is OutputFormat.JSON:
                        print_message(update)
                    _show(progress, bars, update)
                    if until_done and all(_is_done(j) for j in jobs.values()):
                        break
        if output is OutputFormat.TABLE:
            print_table(*job_rows(jobs.values()))
        return EXIT_NO if any(j.state in _BAD_ENDS for j in jobs.values()) else 0

    run_command(work())


async def _any_job(stub: Any, run: str, equipment: str) -> bool:
    wanted = sync_service_pb2.ListJobsRequest(run=run, equipment_id=equipment, page_size=1)
    return bool((await stub.ListJobs(wanted)).jobs)


def _is_done(job: job_pb2.Job) -> bool:
    return job.state in _BAD_ENDS or (job.state in _GOOD_ENDS and job.sealed)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=errors,
    )


def _show(progress: Progress, bars: dict[str, TaskID], update: sync_service_pb2.JobUpdate) -> None:
    job = update.job
    bar = bars.get(job.job_id)
    if bar is None:
        bar = bars[job.job_id] = progress.add_task("", total=None)
    state = short_name(_STATE, job.state)
    leaf = job.run.rpartition("/")[2]
    if update.HasField("progress"):
        phase = short_name(job_pb2.ProgressPhase.DESCRIPTOR, update.progress.phase)
        total = update.progress.bytes_total or None
        progress.update(bar, description=f"{leaf} {phase}", completed=update.progress.bytes_done, total=total)
    else:
        ended = _is_done(job)
        progress.update(
            bar,
            description=f"{leaf} {state}{' and sealed' if job.sealed else ''}",
            completed=job.byte_count if ended else 0,
            total=job.byte_count if ended else None,
        )
