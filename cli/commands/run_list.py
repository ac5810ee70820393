"""labferry run list: runs on disk and those that the log knows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.failure import run_command
from cli.json_form import json_form, short_name
from cli.options import ConfigOption, OutputOption, TokenOption, connect, enum_number
from cli.output import OutputFormat, print_messages, print_table
from labferry.sync.v1 import job_pb2, run_pb2, run_service_pb2, run_service_pb2_grpc
from libs.service_kit.identity import ServiceName

_TIMES = ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d"]


def list_runs(
    equipment: Annotated[str, typer.Option(help="Only of this equipment.")] = "",
    project: Annotated[str, typer.Option(help="Only of this project folder.")] = "",
    kind: Annotated[str, typer.Option(help="experimental or test")] = "",
    status: Annotated[list[str] | None, typer.Option(help="Only with this sync_status; may be repeated.")] = None,
    after: Annotated[datetime | None, typer.Option(formats=_TIMES, help="Made at or after, UTC.")] = None,
    before: Annotated[datetime | None, typer.Option(formats=_TIMES, help="Made before, UTC.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 100,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """List runs by path. `status` is as the log knows it; a run that it says nothing about is pending."""

    async def work() -> None:
        request = run_service_pb2.ListRunsRequest(
            equipment_id=equipment,
            project=project,
            sync_statuses=[enum_number(run_pb2.SyncStatus.DESCRIPTOR, s, "--status") for s in status or ()],
        )
        if kind:
            request.run_kind = enum_number(run_pb2.RunKind.DESCRIPTOR, kind, "--kind")
        if after is not None:
            request.created_after.FromDatetime(after.replace(tzinfo=UTC))
        if before is not None:
            request.created_before.FromDatetime(before.replace(tzinfo=UTC))
        runs: list[run_pb2.Run] = []
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            stub = run_service_pb2_grpc.RunServiceStub(channel)
            while True:
                request.page_size = min(limit - len(runs), 1000)
                page = await stub.ListRuns(request)
                runs += page.runs
                request.page_token = page.next_page_token
                if not page.next_page_token or len(runs) >= limit:
                    break
        if output is OutputFormat.JSON:
            print_messages(runs)
        else:
            print_table(("run", "kind", "sync_status", "made", "jobs"), [_row(run) for run in runs])

    run_command(work())


def _row(run: run_pb2.Run) -> tuple[str, ...]:
    made = dict(run.creation).get("created_at", "")
    jobs = ", ".join(f"{j.destination} {short_name(job_pb2.JobState.DESCRIPTOR, j.state)}" for j in run.jobs)
    form = json_form(run)
    return run.run, str(form["run_kind"]), str(form["sync_status"]), str(made), jobs
