"""TLS in the configuration: what the services prove themselves with, and whom certificates prove."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from libs.service_kit.identity import Caller, Role
from libs.service_kit.settings_block import SettingsBlock


class CertificateCaller(SettingsBlock):
    """Who calls with a certificate of that name, and what it may do."""

    actor: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}$")]
    roles: tuple[Role, ...] = Field(min_length=1)


class TlsSettings(SettingsBlock):
    """For every TCP address of the services; Unix sockets stay as they are. All files are PEM and read again when they
    are renewed.

    `ca` signs the services' certificates. `client_ca` signs those of callers; absent: callers prove themselves by
    tokens alone. `callers`: by a name in the certificate's subject alternative names. Each service that calls another
    does so with `certificate` and `key`.
    """

    certificate: Path
    key: Path
    ca: Path
    client_ca: Path | None = None
    callers: dict[str, CertificateCaller] = Field(default_factory=dict)

    @field_validator("certificate", "key", "ca", "client_ca")
    @classmethod
    def _is_absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError("must be an absolute path")
        return value

    def callers_by_name(self) -> Mapping[str, Caller]:
        """Who a certificate's names prove."""
        return {name: Caller(c.actor, frozenset(c.roles)) for name, c in self.callers.items()}
