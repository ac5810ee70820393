"""Options that every command has, and the values that people may type for enums."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.descriptor import EnumDescriptor

from cli.connection import Connection
from cli.json_form import numbers_by_short_name
from cli.output import OutputFormat
from libs.service_kit.identity import ServiceName

ConfigOption = Annotated[
    Path | None, typer.Option("--config", envvar="LABFERRY_CONFIG", help="labferry.yaml", show_default=False)
]
TokenOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="LABFERRY_TOKEN_FILE",
        help="Whose token to call with; the first operator's by default.",
        show_default=False,
    ),
]
OutputOption = Annotated[OutputFormat, typer.Option("-o", "--output", help="A table for people, or JSON for programs.")]
LogOption = Annotated[ServiceName, typer.Option("--log", help="Whose log.")]
EndpointOption = Annotated[
    str | None,
    typer.Option(help="Address of a configured LIMS; the default one when left out.", show_default=False),
]


def _as_completed(run: str) -> str:
    # Shells end a folder's name with a slash.
    return run.removesuffix("/")


RunArgument = Annotated[
    str, typer.Argument(help="EQUIPMENT/project/Runs/Run_…", show_default=False, callback=_as_completed)
]


def connect(config: Path | None, token_file: Path | None) -> Connection:
    return Connection.from_configuration(config, token_file)


def enum_number(enum: EnumDescriptor, text: str, option: str) -> Any:
    """The number of a short enum value. typer.BadParameter names the values there are."""
    known = numbers_by_short_name(enum)
    number = known.get(text.lower())
    if number is None:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(known)}", param_hint=option)
    return number
