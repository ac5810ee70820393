"""labferry secret leases and revoke-lease: who may read a value just now."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.failure import run_command
from cli.options import ConfigOption, OutputOption, TokenOption, connect
from cli.output import OutputFormat, moment, note, print_messages, print_table
from labferry.secrets.v1 import secrets_service_pb2, secrets_service_pb2_grpc
from libs.service_kit.identity import ServiceName


def leases(
    output: OutputOption = OutputFormat.TABLE, config: ConfigOption = None, token_file: TokenOption = None
) -> None:
    """List who may read a value just now, and for what."""

    async def work() -> None:
        async with connect(config, token_file).channel(ServiceName.SECRETS) as channel:
            stub = secrets_service_pb2_grpc.SecretsServiceStub(channel)
            answer = await stub.ListLeases(secrets_service_pb2.ListLeasesRequest())
        if output is OutputFormat.JSON:
            print_messages(answer.leases)
        else:
            print_table(
                ("lease", "username", "for", "holder", "granted", "ends"),
                [
                    (
                        lease.lease_id,
                        lease.username,
                        lease.purpose,
                        lease.holder,
                        moment(lease.grant_time),
                        moment(lease.expire_time),
                    )
                    for lease in answer.leases
                ],
            )

    run_command(work())


def revoke_lease(
    lease_id: Annotated[str, typer.Argument(help="Id of the lease.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why; kept in the log.", show_default=False)],
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """End a lease. The job that holds it ends and fails; it can be retried."""

    async def work() -> None:
        request = secrets_service_pb2.RevokeLeaseRequest(lease_id=lease_id, reason=reason)
        async with connect(config, token_file).channel(ServiceName.SECRETS) as channel:
            await secrets_service_pb2_grpc.SecretsServiceStub(channel).RevokeLease(request)
        note(f"{lease_id}: revoked")

    run_command(work())
