"""labferry override: add, revoke, list."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.failure import run_command
from cli.json_form import short_name
from cli.options import ConfigOption, OutputOption, RunArgument, TokenOption, connect, enum_number
from cli.output import OutputFormat, moment, print_message, print_messages, print_table
from labferry.sync.v1 import finding_pb2, run_pb2, run_service_pb2, run_service_pb2_grpc
from libs.service_kit.identity import ServiceName

app = typer.Typer(no_args_is_help=True, help="Overrides: permission to ignore one class of finding on one run.")

_RULE = finding_pb2.Rule.DESCRIPTOR
OperatorOption = Annotated[str, typer.Option(help="Who decides.", show_default=False)]
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the log and in creation.json.", show_default=False)]
RequestIdOption = Annotated[str, typer.Option(help="A repeat with the same id returns the first answer.")]


@app.command(
    epilog='Example: labferry override add "CONFOCAL_01/Pilot/Runs/Run_2026-04-17T14-32" leftover_jinja_marker'
    ' --operator asmith --reason "the name is meant"'
)
def add(
    run: RunArgument,
    problem_class: Annotated[str, typer.Argument(help="Rule to permit.", show_default=False)],
    operator: OperatorOption,
    reason: ReasonOption,
    expires_at: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%dT%H:%M:%SZ"], help="UTC; never when absent.")
    ] = None,
    request_id: RequestIdOption = "",
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Record an override."""

    async def work() -> None:
        request = run_service_pb2.RecordOverrideRequest(
            run=run,
            problem_class=enum_number(_RULE, problem_class, "PROBLEM_CLASS"),
            operator=operator,
            reason=reason,
            request_id=request_id,
        )
        if expires_at is not None:
            request.expires_at.FromDatetime(expires_at.replace(tzinfo=UTC))
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            recorded = await run_service_pb2_grpc.RunServiceStub(channel).RecordOverride(request)
        _print([recorded], output, one=True)

    run_command(work())


@app.command(
    epilog='Example: labferry override revoke "CONFOCAL_01/Pilot/Runs/Run_2026-04-17T14-32"'
    ' 7d9f4f5e-2b51-4f0e-9a3c-0a6a3f3f0c11 --operator asmith --reason "recorded by mistake"'
)
def revoke(
    run: RunArgument,
    override_id: Annotated[str, typer.Argument(help="id of the override.", show_default=False)],
    operator: OperatorOption,
    reason: ReasonOption,
    request_id: RequestIdOption = "",
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Revoke an override by a tombstone."""

    async def work() -> None:
        request = run_service_pb2.RevokeOverrideRequest(
            run=run, override_id=override_id, operator=operator, reason=reason, request_id=request_id
        )
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            tombstone = await run_service_pb2_grpc.RunServiceStub(channel).RevokeOverride(request)
        _print([tombstone], output, one=True)

    run_command(work())


@app.command("list", epilog='Example: labferry override list "CONFOCAL_01/Pilot/Runs/Run_2026-04-17T14-32"')
def list_overrides(
    run: RunArgument,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """List a run's overrides and tombstones, in file order."""

    async def work() -> None:
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            answer = await run_service_pb2_grpc.RunServiceStub(channel).ListOverrides(
                run_service_pb2.ListOverridesRequest(run=run)
            )
        _print(answer.overrides, output, one=False)

    run_command(work())


def _print(overrides: Iterable[run_pb2.Override], output: OutputFormat, *, one: bool) -> None:
    if output is OutputFormat.JSON:
        if one:
            for override in overrides:
                print_message(override)
        else:
            print_messages(overrides)
        return
    print_table(
        ("id", "class", "active", "operator", "recorded", "expires", "reason"),
        [
            (
                o.id,
                f"revokes {o.revokes}" if o.revoked else short_name(_RULE, o.problem_class),
                "yes" if o.active else "",
                o.operator,
                moment(o.recorded_at),
                moment(o.expires_at) if o.HasField("expires_at") else "",
                o.reason,
            )
            for o in overrides
        ],
    )
