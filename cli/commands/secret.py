"""labferry secret: the store (status, initialize, unseal, …), and what it keeps (set, rotate-by, list, delete, …)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

import typer

from cli.failure import run_command
from cli.json_form import json_form
from cli.options import ConfigOption, OutputOption, TokenOption, connect
from cli.output import OutputFormat, moment, note, print_message, print_messages, print_table
from labferry.secrets.v1 import secrets_service_pb2, secrets_service_pb2_grpc
from libs.service_kit.identity import ServiceName

app = typer.Typer(no_args_is_help=True, help="The lab's passwords. Values go in and never come out here.")

ServiceOption = Annotated[str, typer.Option("--service", help="Service of the key.")]
UsernameArgument = Annotated[str, typer.Argument(help="lims, nas:EQUIPMENT_ID, or a free name", show_default=False)]
_DEFAULT_SERVICE = "exlab-wizard"
_DATE_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]


def _hidden(prompt: str, *, confirm: bool = False) -> str:
    """A value from the terminal, unseen, or the first line of standard input: never from the command line."""
    if sys.stdin.isatty():
        text: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
        return text
    return sys.stdin.readline().rstrip("\n")


def _print_status(status: secrets_service_pb2.GetStatusResponse, output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        print_message(status)
    else:
        print_table(("field", "value"), [(k, str(v)) for k, v in json_form(status).items()])


def _print_names(secrets: Iterable[secrets_service_pb2.SecretName]) -> None:
    print_table(
        ("service", "username", "version", "set", "by", "rotate by"),
        [
            (
                secret.service,
                secret.username,
                str(secret.version or ""),
                moment(secret.set_time) if secret.HasField("set_time") else "",
                secret.set_by,
                _rotate_by(secret),
            )
            for secret in secrets
        ],
    )


def _rotate_by(secret: secrets_service_pb2.SecretName) -> str:
    if not secret.HasField("rotate_by"):
        return ""
    return moment(secret.rotate_by) + (" OVERDUE" if secret.overdue else "")


@app.command(epilog="Example: labferry secret status")
def status(
    output: OutputOption = OutputFormat.TABLE, config: ConfigOption = None, token_file: TokenOption = None
) -> None:
    """Show which backend serves and whether it is sealed."""

    async def work() -> None:
        async with connect(config, token_file).channel(ServiceName.SECRETS) as channel:
            stub = secrets_service_pb2_grpc.SecretsServiceStub(channel)
            _print_status(await stub.GetStatus(secrets_service_pb2.GetStatusRequest()), output)

    run_command(work())


@app.command(epilog="Example: labferry secret initialize < passphrase.txt")
def initialize(
    output: OutputOption = OutputFormat.TABLE, config: ConfigOption = None, token_file: TokenOption = None
) -> None:
    """Make the encrypted file. The passphrase is asked for, or read from standard input."""

    async def work() -> None:
        connection = connect(config, token_file)
        request = secrets_service_pb2.InitializeRequest(passphrase=_hidden("New passphrase", confirm=True))
        async with connection.channel(ServiceName.SECRETS) as channel:
            stub = secrets_service_pb2_grpc.SecretsServiceStub(channel)
            _print_status(await stub.Initialize(request), output)

    run_command(work())


@app.command(epilog="Example: labferry secret unseal")
def unseal(
    output: OutputOption = OutputFormat.TABLE, config: ConfigOption = None, token_file: TokenOption = None
) -> None:
    """Open the encrypted file. The passphrase is asked for, or read from standard input."""

    async def work() -> None:
        connection = connect(config, token_file)
        request = secrets_service_pb2.UnsealRequest(passphrase=_hidden("Passphrase"))
        async with connection.channel(ServiceName.SECRETS) as channel:
            stub = secrets_service_pb2_grpc.SecretsServiceStub(channel)
            _print_status(await stub.Unseal(request), output)

    run_command(work())


@app.command("change-passphrase", epilog="Example: labferry secret change-passphrase")
def change_passphrase(
    output: OutputOption = OutputFormat.TABLE, config: ConfigOption = None, token_file: TokenOption = None
) -> None:
    """Encrypt the file anew under another passphrase. Both are asked for, or read from two lines of standard input."""

    async def work() -> None:
        connection = connect(config, token_file)
        old, new = _hidden("Present passphrase"), _hidden("New passphrase", confirm=True)
        request = secrets_service_pb2.ChangePassphraseRequest(old=old, new=new)
        async with connection.channel(ServiceName.SECRETS) as channel:
            stub = secrets_service_pb2_grpc.SecretsServiceStub(channel)
            _print_status(await stub.ChangePassphrase(request), output)
        note("if secrets.passphrase_file is configured, put the new one there")

    run_command(work())


@app.command(epilog="Example: labferry secret upgrade")
def upgrade(
    output: OutputOption = OutputFormat.TABLE, config: ConfigOption = None, token_file: TokenOption = None
) -> None:
    """Write the encrypted file in the newest version, which ExLab-Wizard can't read. There is no way back."""

    async def work() -> None:
        connection = connect(config, token_file)
        request = secrets_service_pb2.UpgradeStoreRequest(passphrase=_hidden("Passphrase"))
        async with connection.channel(ServiceName.SECRETS) as channel:
            stub = secrets_service_pb2_grpc.SecretsServiceStub(channel)
            _print_status(await stub.UpgradeStore(request), output)

    run_command(work())


@app.command(epilog="Example: labferry secret seal")
def seal(
    output: OutputOption = OutputFormat.TABLE, config: ConfigOption = None, token_file: TokenOption = None
) -> None:
    """Forget the key."""

    async def work() -> None:
        async with connect(config, token_file).channel(ServiceName.SECRETS) as channel:
            stub = secrets_service_pb2_grpc.SecretsServiceStub(channel)
            _print_status(await stub.Seal(secrets_service_pb2.SealRequest()), output)

    run_command(work())


@app.command("set", epilog="Example: labferry secret set lims")
def set_secret(
    username: UsernameArgument,
    rotate_by: Annotated[
        datetime | None, typer.Option(formats=_DATE_FORMATS, help="Overdue from then on; UTC. No date when absent.")
    ] = None,
    service: ServiceOption = _DEFAULT_SERVICE,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Store or replace a value. It is asked for, or read from standard input."""

    async def work() -> None:
        connection = connect(config, token_file)
        value = _hidden(f"Value of {username}", confirm=True)
        request = secrets_service_pb2.SetSecretRequest(service=service, username=username, value=value)
        if rotate_by is not None:
            request.rotate_by.FromDatetime(rotate_by)
        async with connection.channel(ServiceName.SECRETS) as channel:
            answer = await secrets_service_pb2_grpc.SecretsServiceStub(channel).SetSecret(request)
        if output is OutputFormat.JSON:
            print_message(answer)
        else:
            note(f"{username}: {'replaced' if answer.replaced else 'stored'}, version {answer.version}")

    run_command(work())


@app.command("list", epilog="Example: labferry secret list -o json")
def list_secrets(
    service: ServiceOption = _DEFAULT_SERVICE,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """List names, never values."""

    async def work() -> None:
        async with connect(config, token_file).channel(ServiceName.SECRETS) as channel:
            answer = await secrets_service_pb2_grpc.SecretsServiceStub(channel).ListSecrets(
                secrets_service_pb2.ListSecretsRequest(service=service)
            )
        if output is OutputFormat.JSON:
            print_messages(answer.secrets)
        else:
            _print_names(answer.secrets)

    run_command(work())


@app.command("rotate-by", epilog="Example: labferry secret rotate-by lims 2027-01-31")
def rotate_by(
    username: UsernameArgument,
    date: Annotated[
        datetime | None,
        typer.Argument(formats=_DATE_FORMATS, help="Overdue from then on; UTC. Absent: no date any more."),
    ] = None,
    service: ServiceOption = _DEFAULT_SERVICE,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Say by when a value is to be replaced."""

    async def work() -> None:
        request = secrets_service_pb2.SetRotateByRequest(service=service, username=username)
        if date is not None:
            request.rotate_by.FromDatetime(date)
        async with connect(config, token_file).channel(ServiceName.SECRETS) as channel:
            answer = await secrets_service_pb2_grpc.SecretsServiceStub(channel).SetRotateBy(request)
        if output is OutputFormat.JSON:
            print_message(answer.secret)
        else:
            _print_names([answer.secret])

    run_command(work())


@app.command("versions", epilog="Example: labferry secret versions lims")
def list_versions(
    username: UsernameArgument,
    service: ServiceOption = _DEFAULT_SERVICE,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """List when a value was set and by whom, the newest first. Earlier values are not kept."""

    async def work() -> None:
        request = secrets_service_pb2.ListSecretVersionsRequest(service=service, username=username)
        async with connect(config, token_file).channel(ServiceName.SECRETS) as channel:
            answer = await secrets_service_pb2_grpc.SecretsServiceStub(channel).ListSecretVersions(request)
        if output is OutputFormat.JSON:
            print_messages(answer.versions)
        else:
            print_table(
                ("version", "set", "by", "rotate by"),
                [
                    (
                        str(version.version),
                        moment(version.set_time),
                        version.set_by,
                        moment(version.rotate_by) if version.HasField("rotate_by") else "",
                    )
                    for version in answer.versions
                ],
            )

    run_command(work())


@app.command(epilog='Example: labferry secret delete lims --reason "moved to the new LIMS"')
def delete(
    username: UsernameArgument,
    reason: Annotated[str, typer.Option(help="Why; kept in the log.", show_default=False)],
    service: ServiceOption = _DEFAULT_SERVICE,
    output: OutputOption = OutputFormat.TABLE,
    config: ConfigOption = None,
    token_file: TokenOption = None,
) -> None:
    """Remove a value; silent if there is none."""

    async def work() -> None:
        request = secrets_service_pb2.DeleteSecretRequest(service=service, username=username, reason=reason)
        async with connect(config, token_file).channel(ServiceName.SECRETS) as channel:
            answer = await secrets_service_pb2_grpc.SecretsServiceStub(channel).DeleteSecret(request)
        if output is OutputFormat.JSON:
            print_message(answer)
        else:
            note(f"{username}: {'deleted' if answer.existed else 'there was none'}")

    run_command(work())
