"""labferry staging: what instruments pushed, how far it has come, and making room there."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.failure import EXIT_NO, run_command
from cli.interlocks import may_go_on, print_interlocks
from cli.json_form import short_name
from cli.options import ConfigOption, OutputOption, TokenOption, connect, enum_number
from cli.output import OutputFormat, console, moment, note, print_messages, print_table, size, visible
from labferry.sync.v1 import staging_service_pb2 as pb
from labferry.sync.v1 import staging_service_pb2_grpc
from libs.service_kit.identity import ServiceName

app = typer.Typer(no_args_is_help=True, help="Runs that instruments push to this workstation: list, clear.")

_STATE = pb.StagingState.DESCRIPTOR
_HOLD = pb.StagingHold.DESCRIPTOR


@app.command("list", epilog="Example: labferry staging list --state sync_verified -o json")
def list_runs(
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="Only in this state; may be repeated. By default all but cleared, and cleared ones that are held."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 100,
    equipment: Annotated[bool, typer.Option("--equipment", help="The equipment that pushed them instead.")] = False,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """List staged runs. Exit status 1 when the engine doesn't drive the staging root."""

    async def work() -> int:
        request = pb.ListStagedRunsRequest(states=[enum_number(_STATE, s, "--state") for s in state or ()])
        runs: list[pb.StagedRun] = []
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            stub = staging_service_pb2_grpc.StagingServiceStub(channel)
            while True:
                request.page_size = min(limit - len(runs), 1000)
                page = await stub.ListStagedRuns(request)
                runs += page.runs
                request.page_token = page.next_page_token
                if not page.next_page_token or len(runs) >= limit:
                    break
        if output is OutputFormat.JSON:
            print_messages(page.equipment if equipment else runs)
        elif equipment:
            _print_equipment(page)
        else:
            _print_runs(runs)
        if not page.driving:
            note(f"nothing happens here by this engine: {page.problem}")
        return 0 if page.driving else EXIT_NO

    run_command(work())


def _print_runs(runs: list[pb.StagedRun]) -> None:
    rows = [
        (
            run.run,
            short_name(_STATE, run.state),
            moment(run.state_time),
            str(run.file_count or ""),
            size(run.byte_count) if run.file_count else "",
            f"{short_name(_HOLD, run.hold)}: {run.hold_detail}" if run.hold else "",
        )
        for run in runs
    ]
    print_table(("run", "state", "since", "files", "bytes", "held"), rows)


def _print_equipment(page: pb.ListStagedRunsResponse) -> None:
    signals = pb.CompletenessSignal.DESCRIPTOR
    rows = [
        (
            e.equipment_id,
            e.label,
            "yes" if e.configured else "NO",
            e.host,
            f"{short_name(signals, e.completeness_signal)} {e.signal_file}" if e.completeness_signal else "",
        )
        for e in page.equipment
    ]
    print_table(("equipment", "label", "configured", "host", "complete by"), rows)


@app.command(epilog='Example: labferry staging clear "CONFOCAL_01/Pilot/Runs/Run_2026-04-17T14-32" --dry-run')
def clear(
    runs: Annotated[list[str], typer.Argument(help="EQUIPMENT/project/Runs/Run_…", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the interlocks.")] = False,
    reason: Annotated[str, typer.Option(help="Why; kept in the log. Required unless --dry-run.")] = "",
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Delete the staged data of proven runs, each if every interlock holds. Exit status 1 when one isn't cleared; with
    --dry-run, when something keeps one from being cleared."""

    async def work() -> int:
        request = pb.ClearStagedRunsRequest(runs=runs, dry_run=dry_run, reason=reason)
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            answer = await staging_service_pb2_grpc.StagingServiceStub(channel).ClearStagedRuns(request)
        if output is OutputFormat.JSON:
            print_messages(answer.runs)
        else:
            for one in answer.runs:
                _print_cleared(one, dry_run)
        well = (one.cleared or (dry_run and may_go_on(one.interlocks)) for one in answer.runs)
        return 0 if all(well) else EXIT_NO

    run_command(work())


def _print_cleared(one: pb.ClearedRun, dry_run: bool) -> None:
    console.print(visible(one.run), markup=False)
    print_interlocks(one.interlocks)
    amount = f"{one.file_count} files, {size(one.byte_count)}"
    if one.cleared:
        console.print(f"cleared: {amount}")
    elif dry_run:
        note(f"not deleted: {amount}")
    if one.problem:
        note(one.problem)
    for remaining in one.remaining:
        note(f"still here: {visible(remaining.path)}: {remaining.why}")
