"""labferry project watch: follows what changes in the LIMS."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.failure import run_command
from cli.json_form import short_name
from cli.options import ConfigOption, EndpointOption, OutputOption, TokenOption, connect
from cli.output import OutputFormat, console, moment, note, print_message, visible
from labferry.lims.v1 import lims_service_pb2, lims_service_pb2_grpc
from libs.service_kit.identity import ServiceName

_STATUS = lims_service_pb2.ProjectStatus.DESCRIPTOR


def watch(
    until_in_step: Annotated[
        bool, typer.Option("--until-in-step/--forever", help="End once everything known now has been shown.")
    ] = False,
    resume: Annotated[str, typer.Option(help="A resume_token: only what changed since.")] = "",
    endpoint: EndpointOption = None,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Follow projects: those that are known, then additions, changes and removals as the LIMS is read."""

    async def work() -> None:
        request = lims_service_pb2.WatchProjectsRequest(endpoint=endpoint, resume_token=resume)
        async with connect(config, token_file).channel(ServiceName.LIMS_GATEWAY) as channel:
            async for update in lims_service_pb2_grpc.LimsServiceStub(channel).WatchProjects(request):
                if output is OutputFormat.JSON:
                    print_message(update)
                else:
                    _print(update)
                if until_in_step and update.WhichOneof("update") == "in_step":
                    break

    run_command(work())


def _print(update: lims_service_pb2.WatchProjectsResponse) -> None:
    match update.WhichOneof("update"):
        case "added":
            _line("added", _text(update.added))
        case "removed":
            _line("removed", _text(update.removed))
        case "changed":
            _line("changed", f"{_text(update.changed.old)}  ->  {_text(update.changed.new)}")
        case _:
            read = update.in_step
            note(f"as read at {moment(read.read_time)}" if read.HasField("read_time") else "the LIMS was never read")


def _line(what: str, text: str) -> None:
    console.print(f"{what}  {visible(text)}", markup=False, soft_wrap=True)


def _text(project: lims_service_pb2.Project) -> str:
    return f"{project.short_id}  {project.name}  {short_name(_STATUS, project.status)}"
