"""labferry run clean: delete a proven run's local data, or see what keeps it from being deleted."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.failure import EXIT_NO, run_command
from cli.interlocks import may_go_on, print_interlocks
from cli.options import ConfigOption, OutputOption, RunArgument, TokenOption, connect
from cli.output import OutputFormat, console, note, print_message, size, visible
from labferry.sync.v1 import sync_service_pb2, sync_service_pb2_grpc
from libs.service_kit.identity import ServiceName


def clean(
    run: RunArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the interlocks.")] = False,
    reason: Annotated[str, typer.Option(help="Why; kept in the log. Required unless --dry-run.")] = "",
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Delete a run's local data if every interlock holds. Exit status 1 when it isn't cleaned; with --dry-run, when
    something keeps it from being cleaned."""

    async def work() -> int:
        request = sync_service_pb2.CleanRunRequest(run=run, dry_run=dry_run, reason=reason)
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            answer = await sync_service_pb2_grpc.SyncServiceStub(channel).CleanRun(request)
        if output is OutputFormat.JSON:
            print_message(answer)
        else:
            _show(answer, dry_run)
        return 0 if answer.cleaned or (dry_run and may_go_on(answer.interlocks)) else EXIT_NO

    run_command(work())


def _show(answer: sync_service_pb2.CleanRunResponse, dry_run: bool) -> None:
    print_interlocks(answer.interlocks)
    amount = f"{answer.file_count} files, {size(answer.byte_count)}"
    if answer.gone_count:
        gone = f"{answer.gone_count} files, {size(answer.gone_byte_count)}"
        note(f"gone: {gone}, by an earlier cleanup that was cut off or by somebody else; nobody knows")
    if answer.cleaned and not answer.interlocks and not answer.file_count:
        console.print("was cleaned before")
    elif answer.cleaned:
        console.print(f"cleaned: {amount}")
    elif dry_run:
        note(f"not deleted: {amount}")
    for remaining in answer.remaining:
        note(f"still here: {visible(remaining.path)}: {remaining.why}")
