"""labferry run evidence: what is known of each file of each proven copy."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.failure import run_command
from cli.options import ConfigOption, OutputOption, RunArgument, TokenOption, connect
from cli.output import OutputFormat, moment, print_message, print_table
from labferry.sync.v1 import sync_service_pb2, sync_service_pb2_grpc
from libs.service_kit.identity import ServiceName


def evidence(
    run: RunArgument,
    destination: Annotated[str, typer.Option(help="Only this one.")] = "",
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Show when and how each file was read back last; JSON is one file a line."""

    async def work() -> None:
        request = sync_service_pb2.ListEvidenceRequest(run=run, destination=destination or None)
        rows: list[tuple[str, ...]] = []
        async with connect(config, token_file).channel(ServiceName.SYNC_ENGINE) as channel:
            async for e in sync_service_pb2_grpc.SyncServiceStub(channel).ListEvidence(request):
                if output is OutputFormat.JSON:
                    print_message(e)
                else:
                    rows.append((e.destination, moment(e.time), e.grade, e.method, e.host, e.sha256, e.path))
        if output is OutputFormat.TABLE:
            print_table(("destination", "read", "grade", "method", "host", "sha256", "path"), rows)

    run_command(work())
