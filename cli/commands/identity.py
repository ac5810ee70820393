"""labferry identity: who may call the services of this state folder. Works on the folder itself, not over gRPC: whoever
can write there is the user who runs the services."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from cli.connection import chosen_configuration
from cli.failure import run_local
from cli.options import ConfigOption, OutputOption
from cli.output import OutputFormat, console, note, print_json, print_table
from libs.service_kit.config import load_configuration
from libs.service_kit.identity import OPERATOR_TOKEN_FILE, Role, ServiceName, service_token_file
from libs.service_kit.identity_registry import IdentityError, IdentityRegistry, RegisteredIdentity

app = typer.Typer(
    no_args_is_help=True, help="Who may call: tokens of people and services; a small CA for labs without."
)

_PEOPLE = {Role.VIEWER.value, Role.OPERATOR.value, Role.ADMIN.value}
_SERVICES = {
    Role.SERVICE_SYNC_ENGINE.value: ServiceName.SYNC_ENGINE,
    Role.SERVICE_LIMS_GATEWAY.value: ServiceName.LIMS_GATEWAY,
}

NameArgument = Annotated[str, typer.Argument(help="The identity's name, as events say it.", show_default=False)]


@app.command("list", epilog="Example: labferry identity list -o json")
def list_identities(output: OutputOption = OutputFormat.TABLE, config: ConfigOption = None) -> None:
    """List every identity, the revoked ones too. Never a token."""

    def work() -> None:
        identities = _registry(config).read()
        if output is OutputFormat.JSON:
            print_json([_form(identity) for identity in identities])
            return
        columns = ("name", "roles", "created", "expires", "state")
        print_table(columns, [tuple(_form(identity)[column] for column in columns) for identity in identities])

    run_local(work)


@app.command(epilog="Example: labferry identity create asmith --role operator --days 90")
def create(
    name: NameArgument,
    role: Annotated[list[str], typer.Option(help="viewer, operator or admin; may be repeated.", show_default=False)],
    days: Annotated[
        float | None, typer.Option(min=0.0001, help="The token counts this long. Absent: for good.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="Where the token goes. Absent: identities/NAME.token in the state folder.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Make an identity for a person; its token is written to a file that only you can read."""

    def work() -> None:
        unknown = [r for r in role if r not in _PEOPLE]
        if unknown:
            raise IdentityError(f"{unknown[0]!r} is no role of people: viewer, operator or admin")
        place = token_file or _token_file(_state_dir(config), name)
        lifetime = None if days is None else timedelta(days=days)
        _registry(config).create(name, [Role(r) for r in role], place, lifetime)
        console.print(str(place), markup=False)
        note("give this file to nobody else; as this identity: labferry COMMAND … --token-file FILE")

    run_local(work)


@app.command(epilog="Example: labferry identity rotate service:sync_engine --grace-minutes 10")
def rotate(
    name: NameArgument,
    grace_minutes: Annotated[float, typer.Option(min=0, help="The old token still counts this long.")] = 5,
    token_file: Annotated[
        Path | None, typer.Option(help="Where the new token goes. Absent: where the old one was made.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Give an identity a new token. Running services take theirs up by themselves."""

    def work() -> None:
        place = token_file or _token_file(_state_dir(config), name)
        _registry(config).rotate(name, place, timedelta(minutes=grace_minutes))
        console.print(str(place), markup=False)

    run_local(work)


@app.command(epilog="Example: labferry identity revoke asmith")
def revoke(name: NameArgument, config: ConfigOption = None) -> None:
    """Let an identity's tokens count no longer, from the next call on. Its name is never given again."""

    def work() -> None:
        _registry(config).revoke(name)
        note(f"{name} is revoked")

    run_local(work)


def _state_dir(config: Path | None) -> Path:
    return load_configuration(chosen_configuration(config)).settings.state_dir


def _registry(config: Path | None) -> IdentityRegistry:
    return IdentityRegistry(_state_dir(config))


def _token_file(state_dir: Path, name: str) -> Path:
    """Where the token of that name is made when nobody says otherwise."""
    if name == "operator-1":
        return state_dir / OPERATOR_TOKEN_FILE
    service = _SERVICES.get(name)
    if service is not None:
        return service_token_file(state_dir, service)
    return state_dir / "identities" / f"{name}.token"


def _form(identity: RegisteredIdentity) -> dict[str, str]:
    state = f"revoked at {identity.revoked_at}" if identity.revoked_at else "in use"
    return {
        "name": identity.actor,
        "roles": ", ".join(identity.roles),
        "created": identity.created_at,
        "expires": identity.expires_at,
        "state": state,
    }
