"""labferry events, labferry log verify, labferry log rebuild: any service's event log."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.failure import EXIT_NO, run_command
from cli.json_form import json_form
from cli.options import ConfigOption, OutputOption, TokenOption, connect
from cli.output import OutputFormat, console, moment, note, print_json, print_message, print_table, visible
from labferry.events.v1 import (
    event_log_service_pb2,
    event_log_service_pb2_grpc,
    event_pb2,
    job_events_pb2,
    log_events_pb2,
    run_events_pb2,
    secret_events_pb2,
)
from libs.service_kit.identity import ServiceName

app = typer.Typer(no_args_is_help=True, help="The event log: verify its hash chain, rebuild the read models.")

# Payloads are shown typed: their descriptors must be in the pool before a message is turned into JSON.
_PAYLOADS = (job_events_pb2, log_events_pb2, run_events_pb2, secret_events_pb2)

LogOption = Annotated[ServiceName, typer.Option("--log", help="Whose log.")]


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
    log: LogOption = ServiceName.SYNC_ENGINE,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Recompute the hash chain. Exit status 1 when it is broken."""

    async def work() -> int:
        async with connect(config, token_file).channel(log) as channel:
            stub = event_log_service_pb2_grpc.EventLogServiceStub(channel)
            answer = await stub.VerifyLog(event_log_service_pb2.VerifyLogRequest())
        if output is OutputFormat.JSON:
            print_message(answer)
        elif answer.intact:
            console.print(f"intact: {answer.events_checked} events, head {answer.head_position} {answer.head_hash}")
        else:
            note(f"BROKEN at position {answer.first_bad_position}: {answer.reason}")
        return 0 if answer.intact else EXIT_NO

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
