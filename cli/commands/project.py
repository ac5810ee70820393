"""labferry project: list."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.failure import run_command
from cli.json_form import short_name
from cli.options import ConfigOption, OutputOption, TokenOption, connect, enum_number
from cli.output import OutputFormat, moment, note, print_message, print_table
from labferry.lims.v1 import lims_service_pb2, lims_service_pb2_grpc
from libs.service_kit.identity import ServiceName

app = typer.Typer(no_args_is_help=True, help="Projects of the lab's LIMS.")

_STATUS = lims_service_pb2.ProjectStatus.DESCRIPTOR
_SOURCE = lims_service_pb2.Source.DESCRIPTOR


@app.command("list", epilog="Example: labferry project list --status active --query cortex")
def list_projects(
    status: Annotated[list[str] | None, typer.Option(help="Only in this status; may be repeated.")] = None,
    query: Annotated[str, typer.Option(help="Part of a name or short id.")] = "",
    refresh: Annotated[bool, typer.Option(help="Ask the LIMS even when the cache is fresh.")] = False,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """List projects; says where the answer came from."""

    async def work() -> None:
        request = lims_service_pb2.ListProjectsRequest(
            statuses=[enum_number(_STATUS, s, "--status") for s in status or ()],
            query=query,
            refresh=refresh,
            page_size=1000,
        )
        projects: list[lims_service_pb2.Project] = []
        async with connect(config, token_file).channel(ServiceName.LIMS_GATEWAY) as channel:
            stub = lims_service_pb2_grpc.LimsServiceStub(channel)
            while True:
                page = await stub.ListProjects(request)
                projects += page.projects
                if not page.next_page_token:
                    break
                request.page_token, request.refresh = page.next_page_token, False
        if output is OutputFormat.JSON:
            del page.projects[:]
            page.projects.extend(projects)
            print_message(page)
            return
        print_table(
            ("short id", "name", "status", "owner", "uid"),
            [(p.short_id, p.name, short_name(_STATUS, p.status), p.owner, p.uid) for p in projects],
        )
        stale = ", stale" if page.stale else ""
        note(
            f"{len(projects)} projects, {short_name(_SOURCE, page.source)}, as of {moment(page.freshness_time)}{stale}"
        )
        if page.upstream_failure:
            note(f"the LIMS did not answer: {page.upstream_failure}")
        if page.skipped_rows:
            note(f"{page.skipped_rows} rows of the LIMS lack a required field and are missing here")

    run_command(work())
