"""labferry run queue: one run, or many in one call."""

from __future__ import annotations

from typing import Annotated, Any

import grpc
import typer

from cli.accept_commands import accept_commands
from cli.commands.tables import finding_rows, job_rows
from cli.failure import EXIT_GRPC, EXIT_NO, run_command
from cli.json_form import short_name
from cli.options import ConfigOption, OutputOption, TokenOption, connect
from cli.output import OutputFormat, console, note, print_message, print_table, visible
from labferry.sync.v1 import sync_service_pb2, sync_service_pb2_grpc
from libs.service_kit.identity import ServiceName

_OUTCOME = sync_service_pb2.EnqueueOutcome.DESCRIPTOR
_STATUS_OF = {code.value[0]: code for code in grpc.StatusCode}


def queue(
    run: Annotated[list[str], typer.Argument(help="EQUIPMENT/project/Runs/Run_…, one or several.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why; kept in the log.")] = "",
    request_id: Annotated[str, typer.Option(help="A repeat with the same id returns the first answer.")] = "",
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Queue runs for each of their destinations; one that can't be queued stops no other.

    JSON is a line a run. Exit status 1 when the gate blocks one; that of the first refusal when one is refused.
    """

    async def work() -> int:
        status = 0
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            stub = sync_service_pb2_grpc.SyncServiceStub(channel)
            if len(run) == 1:
                request = sync_service_pb2.EnqueueRunRequest(run=run[0], reason=reason or None, request_id=request_id)
                return _show(await stub.EnqueueRun(request), output)
            many = sync_service_pb2.EnqueueRunsRequest(runs=run, reason=reason or None, request_id=request_id)
            async for answer in stub.EnqueueRuns(many):
                if output is OutputFormat.TABLE:
                    console.print(answer.run, markup=False)
                one = _show(answer, output)
                # A refusal says more than a blocked run.
                status = status if status > EXIT_NO else max(status, one)
        return status

    run_command(work())


def _say_how_to_accept(answer: sync_service_pb2.EnqueueRunResponse) -> None:
    if answer.changed_files:
        console.print("put back what was verified, or accept each change, then queue the run again:", markup=False)
    for command in accept_commands(answer.run, answer.changed_files):
        console.print(f"  $ {visible(command)}", markup=False, soft_wrap=True)


def _show(answer: Any, output: OutputFormat) -> int:
    """Prints one run's answer. Returns its exit status."""
    blocked = answer.outcome == sync_service_pb2.ENQUEUE_OUTCOME_BLOCKED
    if output is OutputFormat.JSON:
        print_message(answer)
    if answer.HasField("error"):
        note(f"{_STATUS_OF[answer.error.code].name}: {answer.error.message}")
        note(f"  reason: {answer.error.reason}")
        return int(EXIT_GRPC + answer.error.code)
    if output is OutputFormat.TABLE:
        console.print(short_name(_OUTCOME, answer.outcome), markup=False)
        print_table(*(finding_rows(answer.blocking_findings) if blocked else job_rows(answer.jobs)))
        _say_how_to_accept(answer)
    return EXIT_NO if blocked else 0
