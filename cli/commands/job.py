"""labferry job: list, show, and the commands of its neighbours job_watch.py and job_control.py."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.commands import job_control
from cli.commands.job_watch import watch
from cli.commands.tables import job_rows, waiting_rows
from cli.failure import run_command
from cli.json_form import short_name
from cli.options import ConfigOption, OutputOption, TokenOption, connect, enum_number
from cli.output import OutputFormat, console, moment, print_message, print_messages, print_table, size
from labferry.sync.v1 import job_pb2, sync_service_pb2, sync_service_pb2_grpc
from libs.service_kit.identity import ServiceName

app = typer.Typer(no_args_is_help=True, help="Jobs: list, show, watch, and pause, resume, cancel, retry, prioritize.")

_STATE = job_pb2.JobState.DESCRIPTOR
_KIND = job_pb2.FailureKind.DESCRIPTOR


@app.command("list", epilog="Example: labferry job list --state failed --state queued -o json")
def list_jobs(
    run: Annotated[str, typer.Option(help="Only of this run.")] = "",
    equipment: Annotated[str, typer.Option(help="Only of this equipment.")] = "",
    destination: Annotated[str, typer.Option(help="Only to this destination.")] = "",
    state: Annotated[list[str] | None, typer.Option(help="Only in this state; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 100,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """List jobs in the order they were queued."""

    async def work() -> None:
        states = [enum_number(_STATE, s, "--state") for s in state or ()]
        jobs: list[job_pb2.Job] = []
        token = ""
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            stub = sync_service_pb2_grpc.SyncServiceStub(channel)
            while len(jobs) < limit:
                page = await stub.ListJobs(
                    sync_service_pb2.ListJobsRequest(
                        run=run,
                        equipment_id=equipment,
                        destination=destination,
                        states=states,
                        page_size=min(limit - len(jobs), 1000),
                        page_token=token,
                    )
                )
                jobs += page.jobs
                token = page.next_page_token
                if not token:
                    break
        if output is OutputFormat.JSON:
            print_messages(jobs)
        else:
            print_table(*job_rows(jobs))

    run_command(work())


@app.command(epilog="Example: labferry job show 01990000-0000-7000-8000-000000000000 -o json")
def show(
    job_id: Annotated[str, typer.Argument(help="The job.", show_default=False)],
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Show all of one job: where it stands, what it waits on, how it failed."""

    async def work() -> None:
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            request = sync_service_pb2.GetJobRequest(job_id=job_id)
            job = await sync_service_pb2_grpc.SyncServiceStub(channel).GetJob(request)
        if output is OutputFormat.JSON:
            print_message(job)
            return
        print_table(("field", "value"), _fields(job))
        if job.waiting_on:
            console.print()
            print_table(*waiting_rows(job.waiting_on))

    run_command(work())


def _fields(job: job_pb2.Job) -> list[tuple[str, str]]:
    fields = [
        ("job", job.job_id),
        ("run", job.run),
        ("equipment", job.equipment_id),
        ("destination", job.destination),
        ("state", short_name(_STATE, job.state)),
        ("sealed", "yes" if job.sealed else "no"),
        ("attempt", str(job.attempt)),
        ("priority", str(job.priority)),
        ("queued", moment(job.enqueue_time)),
    ]
    if job.amendment:
        fields.append(("amendment", f"{job.amendment}, of job {job.amends_job_id}"))
    if job.file_count:
        fields.append(("verified", f"{job.verify_passes} passes in a row"))
        fields.append(("files", f"{job.file_count}, {size(job.byte_count)}"))
    if job.HasField("failure"):
        fields.append(("last failure", f"{short_name(_KIND, job.failure.kind)}: {job.failure.message}"))
        fields += [("", path) for path in job.failure.paths]
    return fields


app.command("watch", epilog="Example: labferry job watch --run EQUIPMENT/project/Runs/Run_2026-04-17T14-32")(watch)
job_control.add_to(app)
