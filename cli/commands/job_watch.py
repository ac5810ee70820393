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
from cli.watched_jobs import WatchedJobs, is_done
from labferry.sync.v1 import job_pb2, sync_service_pb2, sync_service_pb2_grpc
from libs.service_kit.identity import ServiceName

_STATE = job_pb2.JobState.DESCRIPTOR


def watch(
    job_id: Annotated[list[str] | None, typer.Argument(help="Only these jobs.", show_default=False)] = None,
    run: Annotated[str, typer.Option(help="Only of this run.")] = "",
    equipment: Annotated[str, typer.Option(help="Only of this equipment.")] = "",
    until_done: Annotated[
        bool, typer.Option("--until-done/--forever", help="End when every job that counts is sealed or has ended.")
    ] = True,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Follow jobs with a progress bar, those that are queued meanwhile too.

    Of a run's jobs to one destination the last counts; of jobs that are named each does. Exit status 1 when one that
    counts failed or was cancelled.
    """

    async def work() -> int:
        request = sync_service_pb2.WatchJobsRequest(job_ids=job_id or (), run=run, equipment_id=equipment)
        bars: dict[str, TaskID] = {}
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            stub = sync_service_pb2_grpc.SyncServiceStub(channel)
            # The stream doesn't say where its beginning ends: what is there is asked for first.
            watched = WatchedJobs(await _present(stub, request), each_counts=bool(job_id))
            if until_done and not watched.jobs:
                note("there is no such job to wait for; --forever waits until there is one")
                return EXIT_NO
            with _progress() as progress:
                async for update in stub.WatchJobs(request):
                    watched.take(update.job)
                    if output is OutputFormat.JSON:
                        print_message(update)
                    _show(progress, bars, update)
                    if until_done and watched.over:
                        break
        if output is OutputFormat.TABLE:
            print_table(*job_rows(watched.jobs.values()))
        return EXIT_NO if watched.failed else 0

    run_command(work())


async def _present(stub: Any, wanted: sync_service_pb2.WatchJobsRequest) -> list[job_pb2.Job]:
    """The jobs that fit now, in the order they were queued. NOT_FOUND when there is none of a given id."""
    if wanted.job_ids:
        named = [await stub.GetJob(sync_service_pb2.GetJobRequest(job_id=one)) for one in wanted.job_ids]
        return [job for job in named if wanted.run in ("", job.run) and wanted.equipment_id in ("", job.equipment_id)]
    jobs: list[job_pb2.Job] = []
    request = sync_service_pb2.ListJobsRequest(run=wanted.run, equipment_id=wanted.equipment_id, page_size=1000)
    while True:
        page = await stub.ListJobs(request)
        jobs += page.jobs
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return jobs


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
        ended = is_done(job)
        progress.update(
            bar,
            description=f"{leaf} {state}{' and sealed' if job.sealed else ''}",
            completed=job.byte_count if ended else 0,
            total=job.byte_count if ended else None,
        )
