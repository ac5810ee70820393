"""labferry run accept: one file's change since it was proven, or since somebody else put a file there."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cli.commands.tables import job_rows
from cli.failure import run_command
from cli.options import ConfigOption, OutputOption, RunArgument, TokenOption, connect
from cli.output import OutputFormat, note, print_message, print_table
from labferry.sync.v1 import sync_service_pb2, sync_service_pb2_grpc
from libs.service_kit.identity import ServiceName


def accept(
    run: RunArgument,
    path: Annotated[str, typer.Argument(help="The file, relative to the run.", show_default=False)],
    old: Annotated[str, typer.Option(help="SHA-256 of what the destination holds.", show_default=False)],
    operator: Annotated[str, typer.Option(help="Who decides.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why; kept in the log.", show_default=False)],
    new: Annotated[str, typer.Option(help="SHA-256 of what the run holds now.")] = "",
    removed: Annotated[
        bool, typer.Option("--removed", help="Instead of --new: the run no longer has the file.")
    ] = False,
    destination: Annotated[str, typer.Option(help="Only there; at every destination when absent.")] = "",
    request_id: Annotated[str, typer.Option(help="A repeat with the same id returns the first answer.")] = "",
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Accept that exactly this content replaces exactly that one. The old copy is kept beside the data."""
    if bool(new) == removed:
        raise typer.BadParameter("give one of --new and --removed")

    async def work() -> None:
        raw = os.fsencode(path)
        request = sync_service_pb2.AcceptChangeRequest(
            run=run,
            destination=destination or None,
            path=raw.decode(errors="replace"),
            path_bytes=raw if raw.decode(errors="replace").encode() != raw else b"",
            old_sha256=old,
            new_sha256=new,
            operator=operator,
            reason=reason,
            request_id=request_id,
        )
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            answer = await sync_service_pb2_grpc.SyncServiceStub(channel).AcceptChange(request)
        if output is OutputFormat.JSON:
            print_message(answer)
        elif answer.rearmed_jobs:
            print_table(*job_rows(answer.rearmed_jobs))
        else:
            note("accepted; labferry run queue brings it there, once all that differs is accepted")

    run_command(work())
