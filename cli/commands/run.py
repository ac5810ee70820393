"""labferry run: adopt, show, verify; queue and accept are its neighbours run_queue.py and run_accept.py."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cli.commands.run_accept import accept
from cli.commands.run_queue import queue
from cli.commands.tables import job_rows
from cli.failure import EXIT_NO, run_command
from cli.json_form import json_form
from cli.options import ConfigOption, OutputOption, RunArgument, TokenOption, connect, enum_number
from cli.output import OutputFormat, console, errors, note, print_json, print_message, print_table, visible
from labferry.sync.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc, sync_service_pb2, sync_service_pb2_grpc
from libs.service_kit.identity import ServiceName

app = typer.Typer(no_args_is_help=True, help="Runs: list, adopt, queue, show, verify, accept changes.")

_RUN_KIND = run_pb2.RunKind.DESCRIPTOR


@app.command(
    epilog="Example: labferry run adopt /data/lab/incoming/scan7 --equipment CONFOCAL_01"
    ' --project "Cortex Q3 Pilot" --operator asmith'
)
def adopt(
    source: Annotated[Path, typer.Argument(help="Folder inside a configured local_root.", show_default=False)],
    equipment: Annotated[str, typer.Option(help="Equipment that made it.", show_default=False)],
    project: Annotated[str, typer.Option(help="Project folder's name.", show_default=False)],
    operator: Annotated[str, typer.Option(help="Who adopts it.", show_default=False)],
    kind: Annotated[str, typer.Option(help="experimental or test")] = "experimental",
    started: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ"], help="UTC; else the oldest file's time."),
    ] = None,
    request_id: Annotated[str, typer.Option(help="A repeat with the same id returns the first answer.")] = "",
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Give a foreign folder the run layout and a creation.json, by copying."""

    async def work() -> None:
        request = sync_service_pb2.AdoptRunRequest(
            source_folder=str(source.absolute()),
            equipment_id=equipment,
            project=project,
            operator=operator,
            run_kind=enum_number(_RUN_KIND, kind, "--kind"),
            request_id=request_id,
        )
        if started is not None:
            request.started_time.FromDatetime(started.replace(tzinfo=UTC))
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            run = await sync_service_pb2_grpc.SyncServiceStub(channel).AdoptRun(request)
        if output is OutputFormat.JSON:
            print_message(run)
        else:
            console.print(run.run, markup=False)

    run_command(work())


@app.command(epilog='Example: labferry run show "CONFOCAL_01/Cortex Q3 Pilot/Runs/Run_2026-04-17T14-32" -o json')
def show(
    run: RunArgument,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Show a run, its status and its jobs."""

    async def work() -> None:
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            found = await run_service_pb2_grpc.RunServiceStub(channel).GetRun(run_service_pb2.GetRunRequest(run=run))
        if output is OutputFormat.JSON:
            print_message(found)
            return
        form = json_form(found)
        rows = [(k, str(form[k])) for k in ("run", "equipment_id", "project", "run_kind", "sync_status")]
        if found.HasField("foreign_sync_status"):
            rows.append(("sync_status in the file", f"{found.foreign_sync_status} (written by another program)"))
        print_table(("field", "value"), rows)
        console.print()
        print_table(*job_rows(found.jobs))

    run_command(work())


@app.command(epilog='Example: labferry run verify "CONFOCAL_01/Cortex Q3 Pilot/Runs/Run_2026-04-17T14-32"')
def verify(
    run: RunArgument,
    destination: Annotated[str, typer.Option(help="Only this one.")] = "",
    reason: Annotated[str, typer.Option(help="Why; kept in the log.")] = "",
    max_stream_bytes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Largest file to download for it and for later readings, where nothing else tells a hash."
        ),
    ] = None,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Read back what the destinations hold and compare. Exit status 1 unless every one matches."""

    async def work() -> int:
        request = sync_service_pb2.VerifyRunRequest(
            run=run, destination=destination or None, reason=reason or None, max_stream_bytes=max_stream_bytes
        )
        reports: list[sync_service_pb2.VerifyReport] = []
        try:
            async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
                with _bar() as bar:
                    task = bar.add_task("reading back", total=None)
                    async for update in sync_service_pb2_grpc.SyncServiceStub(channel).VerifyRun(request):
                        if update.WhichOneof("update") == "progress":
                            total = update.progress.bytes_total or None
                            bar.update(task, completed=update.progress.bytes_done, total=total)
                        else:
                            reports.append(update.report)
                            whole = bar.tasks[task].total or 1
                            bar.update(task, completed=whole, total=whole)
        finally:
            # A destination that can't be asked takes nothing from what was found at the others.
            if output is OutputFormat.JSON:
                print_json([json_form(r) for r in reports])
            elif reports:
                _print_reports(reports)
        return 0 if reports and all(r.passed for r in reports) else EXIT_NO

    run_command(work())


app.command(epilog='Example: labferry run queue "CONFOCAL_01/Cortex Q3 Pilot/Runs/Run_2026-04-17T14-32"')(queue)
app.command(
    epilog='Example: labferry run accept "CONFOCAL_01/Pilot/Runs/Run_2026-04-17T14-32" tile.tif --old SHA256'
    ' --new SHA256 --operator asmith --reason "recalibrated"'
)(accept)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=errors
    )


def _print_reports(reports: list[sync_service_pb2.VerifyReport]) -> None:
    columns = ("destination", "passed", "expected", "hashed", "matched", "grade", "method", "note")
    print_table(
        columns,
        [
            (
                *(r.destination, "yes" if r.passed else "NO", str(r.expected), str(r.hashed), str(r.matched)),
                *(r.grade, r.method, r.note),
            )
            for r in reports
        ],
    )
    for report in reports:
        for what, paths, count in (
            ("missing", report.missing, report.missing_count),
            ("differing", report.differing, report.differing_count),
            ("unreadable", report.unreadable, 0),
            ("unexpected", report.unexpected, 0),
        ):
            for path in paths:
                note(f"{report.destination}: {what}: {visible(path)}")
            if count > len(paths):
                note(f"{report.destination}: {what}: and {count - len(paths)} more")
