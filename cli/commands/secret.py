"""labferry secret: status, initialize, unseal, change-passphrase, upgrade, seal, set, list, delete."""

from __future__ import annotations

import sys
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
        async with connection.channel(ServiceName.SECRETS) as channel:
            answer = await secrets_service_pb2_grpc.SecretsServiceStub(channel).SetSecret(request)
        if output is OutputFormat.JSON:
            print_message(answer)
        else:
            note(f"{username}: {'replaced' if answer.replaced else 'stored'}")

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
            print_table(
                ("service", "username", "set"),
                [(s.service, s.username, moment(s.set_time) if s.HasField("set_time") else "") for s in answer.secrets],
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
