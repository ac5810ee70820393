"""labferry project: list, show, refresh."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from cli.commands.project_watch import watch
from cli.failure import run_command
from cli.json_form import short_name
from cli.options import ConfigOption, EndpointOption, OutputOption, TokenOption, connect, enum_number
from cli.output import OutputFormat, console, moment, note, print_message, print_table
from labferry.lims.v1 import lims_service_pb2, lims_service_pb2_grpc
from libs.service_kit.identity import ServiceName

app = typer.Typer(no_args_is_help=True, help="Projects of the lab's LIMS: list, show, refresh, watch.")
app.command(epilog="Example: labferry project watch --until-in-step")(watch)

_STATUS = lims_service_pb2.ProjectStatus.DESCRIPTOR
_SOURCE = lims_service_pb2.Source.DESCRIPTOR


@app.command("list", epilog="Example: labferry project list --status active --query cortex")
def list_projects(
    status: Annotated[list[str] | None, typer.Option(help="Only in this status; may be repeated.")] = None,
    query: Annotated[str, typer.Option(help="Part of a name or short id.")] = "",
    refresh: Annotated[bool, typer.Option(help="Ask the LIMS even when the cache is fresh.")] = False,
    endpoint: EndpointOption = None,
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
            endpoint=endpoint,
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
        note(f"{len(projects)} projects, {_origin(page)}")
        _note_shortcomings(page)
        if page.skipped_rows:
            note(f"{page.skipped_rows} rows of the LIMS lack a required field and are missing here")

    run_command(work())


@app.command(epilog="Example: labferry project show PROJ-0042")
def show(
    project: Annotated[str, typer.Argument(help="Short id or uid.", show_default=False)],
    endpoint: EndpointOption = None,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Show a project; says where the answer came from."""

    async def work() -> None:
        request = lims_service_pb2.GetProjectRequest(id=project, endpoint=endpoint)
        async with connect(config, token_file).channel(ServiceName.LIMS_GATEWAY) as channel:
            answer = await lims_service_pb2_grpc.LimsServiceStub(channel).GetProject(request)
        if output is OutputFormat.JSON:
            print_message(answer)
            return
        found = answer.project
        print_table(
            ("field", "value"),
            (
                ("short_id", found.short_id),
                ("uid", found.uid),
                ("name", found.name),
                ("status", short_name(_STATUS, found.status)),
                ("owner", found.owner),
                ("contact", found.contact_name),
                ("description", found.description),
                ("created", _moment(found.created_time)),
                ("updated", _moment(found.updated_time)),
            ),
        )
        note(_origin(answer))
        _note_shortcomings(answer)

    run_command(work())


@app.command(epilog="Example: labferry project refresh")
def refresh(
    endpoint: EndpointOption = None,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Have the LIMS read now. Fails when it can't be; what was cached then stays."""

    async def work() -> None:
        request = lims_service_pb2.RefreshProjectsRequest(endpoint=endpoint)
        async with connect(config, token_file).channel(ServiceName.LIMS_GATEWAY) as channel:
            answer = await lims_service_pb2_grpc.LimsServiceStub(channel).RefreshProjects(request)
        if output is OutputFormat.JSON:
            print_message(answer)
            return
        console.print(f"{answer.count} projects, as of {moment(answer.fetched_at)}")
        if answer.skipped_rows:
            note(f"{answer.skipped_rows} rows of the LIMS lack a required field and are missing here")

    run_command(work())


def _origin(answer: lims_service_pb2.ListProjectsResponse | lims_service_pb2.GetProjectResponse) -> str:
    """Where an answer came from, how old it is, and who wrote the catalogue."""
    source = short_name(_SOURCE, answer.source)
    stale = ", stale" if answer.stale else ""
    written = f", written by {answer.produced_by} {_moment(answer.produced_at)}" if answer.produced_by else ""
    return f"{source}, as of {_moment(answer.freshness_time)}{stale}{written}"


def _note_shortcomings(answer: lims_service_pb2.ListProjectsResponse | lims_service_pb2.GetProjectResponse) -> None:
    if answer.upstream_failure:
        note(f"the LIMS did not answer: {answer.upstream_failure}")


def _moment(stamp: Timestamp) -> str:
    """Empty for a time that the source doesn't have."""
    return moment(stamp) if stamp.seconds or stamp.nanos else ""
