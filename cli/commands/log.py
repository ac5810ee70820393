"""labferry events, labferry log verify, checkpoints, rebuild: any service's event log."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import event_payloads  # noqa: F401 -- payloads are shown typed
from cli.commands import log_copies
from cli.failure import EXIT_NO, run_command
from cli.json_form import json_form
from cli.options import ConfigOption, LogOption, OutputOption, TokenOption, connect
from cli.output import OutputFormat, console, moment, note, print_json, print_message, print_table, visible
from labferry.events.v1 import event_log_service_pb2, event_log_service_pb2_grpc, event_pb2
from libs.service_kit.identity import ServiceName

app = typer.Typer(
    no_args_is_help=True, help="The event log: verify, export, back up and restore it, rebuild the read models."
)
app.command("export", epilog="Example: labferry log export audit.jsonl --reason 'inspection'")(log_copies.export)
app.command("backup", epilog="Example: labferry log backup engine.tar --log sync_engine")(log_copies.backup)
app.command("restore", epilog="Example: labferry log restore engine.tar --service sync_engine")(log_copies.restore)


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is recorded from now on.")] = False,
    after: Annotated[int, typer.Option(min=0, help="Only what follows this position.")] = 0,
    stream: Annotated[str, typer.Option(help="Only streams whose name begins so: job-…, run-…")] = "",
    event_type: Annotated[list[str] | None, typer.Option("--type", help="Only this type; may be repeated.")] = None,
    log: LogOption = ServiceName.SYNC_ENGINE,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Show recorded events; JSON is one event a line. A cut-off --follow resumes with --after."""

    async def work() -> None:
        request = event_log_service_pb2.SubscribeEventsRequest(
            after_position=after, stream_prefix=stream, types=event_type or ()
        )
        async with connect(config, token_file).channel(log) as channel:
            call = event_log_service_pb2_grpc.EventLogServiceStub(channel).SubscribeEvents(request)
            async for step in call:
                for event in step.events.events:
                    _show(event, output)
                if step.WhichOneof("content") == "caught_up" and not follow:
                    break

    run_command(work())


def _show(event: event_pb2.Event, output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        print_json(json_form(event))
        return
    reason = f"  ({event.reason})" if event.reason else ""
    line = f"{event.position:>6}  {moment(event.recorded_time)}  {event.type}  {event.stream}  {event.actor}{reason}"
    console.print(visible(line), markup=False, soft_wrap=True)


@app.command(epilog="Example: labferry log verify --log secrets")
def verify(
    skip_blobs: Annotated[bool, typer.Option("--skip-blobs", help="Leave the blobs unread.")] = False,
    log: LogOption = ServiceName.SYNC_ENGINE,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Check the hash chain, the signed checkpoints and the blobs. Exit status 1 when anything doesn't fit."""

    async def work() -> int:
        request = event_log_service_pb2.VerifyLogRequest(skip_blobs=skip_blobs)
        async with connect(config, token_file).channel(log) as channel:
            answer = await event_log_service_pb2_grpc.EventLogServiceStub(channel).VerifyLog(request)
        if output is OutputFormat.JSON:
            print_message(answer)
        else:
            _show_verdict(answer)
        return 0 if answer.intact else EXIT_NO

    run_command(work())


def _show_verdict(answer: event_log_service_pb2.VerifyLogResponse) -> None:
    if answer.intact:
        counts = (
            f"{answer.events_checked} events, {answer.checkpoints_checked} checkpoints, {answer.blobs_checked} blobs"
        )
        console.print(f"intact: {counts}, head {answer.head_position} {answer.head_hash}")
    else:
        note(f"BROKEN at position {answer.first_bad_position}: {answer.reason}")
    for checkpoint in answer.checkpoint_problems:
        note(f"checkpoint {checkpoint.number} of {checkpoint.file}: {checkpoint.reason}")
    for blob in answer.blob_problems:
        note(f"position {blob.position}: {blob.reason}")
    for folder in answer.unread_folders:
        note(f"not compared with {folder.file}: {folder.problem}")


@app.command(epilog="Example: labferry log checkpoints --log secrets")
def checkpoints(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, the newest.")] = 10,
    log: LogOption = ServiceName.SYNC_ENGINE,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Show the newest signed checkpoints, and where they are kept. Exit status 1 when a place can't be written."""

    async def work() -> int:
        request = event_log_service_pb2.ListCheckpointsRequest(limit=limit)
        async with connect(config, token_file).channel(log) as channel:
            answer = await event_log_service_pb2_grpc.EventLogServiceStub(channel).ListCheckpoints(request)
        if output is OutputFormat.JSON:
            print_message(answer)
        else:
            rows = [(str(c.number), str(c.position), c.time, c.hash) for c in answer.checkpoints]
            print_table(("number", "position", "time", "hash"), rows)
            print_table(
                ("kept in", "up to number", "problem"),
                [(f.file, str(f.last_number), f.problem) for f in answer.folders],
            )
        return EXIT_NO if any(folder.problem for folder in answer.folders) else 0

    run_command(work())


@app.command(epilog="Example: labferry log rebuild --dry-run")
def rebuild(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only compare.")] = False,
    log: LogOption = ServiceName.SYNC_ENGINE,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Rebuild the read models from the log. Exit status 1 when those in use differed."""

    async def work() -> int:
        async with connect(config, token_file).channel(log) as channel:
            answer = await event_log_service_pb2_grpc.EventLogServiceStub(channel).RebuildProjections(
                event_log_service_pb2.RebuildProjectionsRequest(dry_run=dry_run)
            )
        if output is OutputFormat.JSON:
            print_message(answer)
        else:
            print_table(
                ("read model", "events", "differences"),
                [(p.name, str(p.events_applied), str(p.differences)) for p in answer.projections],
            )
            for projection in answer.projections:
                for sample in projection.difference_samples:
                    note(f"{projection.name}: {sample}")
        return EXIT_NO if any(p.differences for p in answer.projections) else 0

    run_command(work())
