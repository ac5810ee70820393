"""Where the services listen, and where they are reached."""

from __future__ import annotations

import ipaddress
import re
from typing import Self

from pydantic import field_validator, model_validator

from libs.service_kit.settings_block import SettingsBlock

_HOST_AND_PORT = re.compile(
    r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+):(6553[0-5]|655[0-2]\d|65[0-4]\d\d|6[0-4]\d{3}|[1-5]\d{4}|\d{1,4})"
)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_local(address: str) -> bool:
    """Whether nobody beyond this machine can reach it: a Unix socket, or "host:port" on loopback."""
    return address.startswith("unix:") or is_loopback(address.rpartition(":")[0])


class ListenSettings(SettingsBlock):
    """Where each service listens: "host:port", or "unix:/path". Beyond loopback only with `tls`.

    `secrets` empty: a Unix socket in its state folder. Whoever binds a port first could ask for tokens and passphrases;
    nobody else can make a socket there.
    """

    secrets: str = ""
    lims_gateway: str = "127.0.0.1:7402"
    sync_engine: str = "127.0.0.1:7403"

    @field_validator("*")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value.startswith("unix:"):
            if not value.removeprefix("unix:").startswith("/"):
                raise ValueError("a unix socket needs an absolute path: unix:/path")
            return value
        _, colon, port = value.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:
            raise ValueError('must be "host:port" or "unix:/path"')
        return value

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        addresses = [a for a in (self.secrets, self.lims_gateway, self.sync_engine) if not a.endswith(":0")]
        if len(set(addresses)) != len(addresses):
            raise ValueError("two services share an address")
        return self


class ConnectSettings(SettingsBlock):
    """Where each service is reached, if that isn't where it listens: behind a service name of the cluster, say."""

    secrets: str | None = None
    lims_gateway: str | None = None
    sync_engine: str | None = None

    @field_validator("*")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None and not (value.startswith("unix:/") or _HOST_AND_PORT.fullmatch(value)):
            raise ValueError('must be "host:port" or "unix:/path"')
        return value


class SideAddresses(SettingsBlock):
    """An address of each service beside its own: "host:port". Absent: none."""

    secrets: str | None = None
    lims_gateway: str | None = None
    sync_engine: str | None = None

    @field_validator("*")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None and not _HOST_AND_PORT.fullmatch(value):
            raise ValueError('must be "host:port"')
        return value


class HealthSettings(SettingsBlock):
    """Where each service tells its health and nothing else, in plaintext: Kubernetes' own gRPC probes speak no TLS."""

    listen: SideAddresses = SideAddresses()


class MetricsSettings(SettingsBlock):
    """Where each service answers GET /metrics, in plaintext and for anybody who reaches the address: so beyond loopback
    only when `beyond_loopback` says that this is meant."""

    listen: SideAddresses = SideAddresses()
    beyond_loopback: bool = False

    @model_validator(mode="after")
    def _is_loopback_unless_meant(self) -> Self:
        for name, address in self.listen.model_dump().items():
            if address is not None and not self.beyond_loopback and not is_loopback(address.rpartition(":")[0]):
                raise ValueError(f"{name} would be reached from other machines; beyond_loopback: true allows that")
        return self
