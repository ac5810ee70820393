"""How the CLI reaches the services: addresses from the configuration, the operator's token from its file."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from grpc.aio import Channel

from libs.service_kit.channel import open_channel, read_token
from libs.service_kit.config import CONFIG_VARIABLE, load_configuration
from libs.service_kit.identity import OPERATOR_TOKEN_FILE, ServiceName
from libs.service_kit.settings import Settings

_DEFAULT = Path("labferry.yaml")
_STATE_DIR_VARIABLE = "LABFERRY_STATE_DIR"


def configuration_beside() -> Path | None:
    """labferry.yaml in the present folder, unless LABFERRY_CONFIG names another."""
    if os.environ.get(CONFIG_VARIABLE):
        return None
    return _DEFAULT if _DEFAULT.exists() else None


class NoConfigurationError(Exception):
    """Nothing says where the services are."""

    def __init__(self) -> None:
        super().__init__(
            f"no configuration: give --config FILE, set {CONFIG_VARIABLE}, or be in the folder of a {_DEFAULT}"
        )


def chosen_configuration(config: Path | None) -> Path | None:
    """The file that a command uses; None when the environment alone configures. NoConfigurationError."""
    path = config or configuration_beside()
    if path is None and not any(name in os.environ for name in (CONFIG_VARIABLE, _STATE_DIR_VARIABLE)):
        raise NoConfigurationError
    return path


class TokenFileError(Exception):
    """The operator's token can't be read; the message says where it was looked for."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the services listen, and who calls."""

    settings: Settings
    token: str

    @classmethod
    def from_configuration(cls, config: Path | None, token_file: Path | None) -> Connection:
        """ConfigurationError, TokenFileError."""
        settings = load_configuration(chosen_configuration(config)).settings
        path = token_file or settings.state_dir / OPERATOR_TOKEN_FILE
        try:
            token = read_token(path)
        except OSError as error:
            hint = (
                "the services make it at their first start"
                if isinstance(error, FileNotFoundError)
                else "use --token-file"
            )
            raise TokenFileError(f"the token file {path} can't be read ({error.strerror}); {hint}") from error
        return cls(settings, token)

    def address(self, service: ServiceName) -> str:
        return self.settings.reached_at(service)

    @asynccontextmanager
    async def channel(self, service: ServiceName) -> AsyncIterator[Channel]:
        async with open_channel(self.address(service), lambda: self.token, self.settings.tls) as channel:
            yield channel
