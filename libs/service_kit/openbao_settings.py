"""Where an OpenBao (or HashiCorp Vault) keeps the lab's secrets, and how Labferry logs in there. No secret is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from libs.service_kit.listen_settings import is_local
from libs.service_kit.settings_block import SettingsBlock

_SEGMENTS = r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$"


class TokenFileLogin(SettingsBlock):
    """A token that somebody else, such as an agent, puts into a file and may replace there."""

    method: Literal["token_file"]
    token_file: Path


class AppRoleLogin(SettingsBlock):
    method: Literal["approle"]
    role_id: str = Field(min_length=1)
    secret_id_file: Path
    mount: str = Field(default="approle", pattern=_SEGMENTS)


class KubernetesLogin(SettingsBlock):
    """With the token of the pod's service account."""

    method: Literal["kubernetes"]
    role: str = Field(min_length=1)
    jwt_file: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    mount: str = Field(default="kubernetes", pattern=_SEGMENTS)


class OpenBaoSettings(SettingsBlock):
    """`mount`: of a KV engine, version 2. Secrets lie below `path_prefix` there, as <service>/<username>.

    `ca_file` absent: the system's authorities. `timeout_seconds`: of each call.
    """

    address: str
    mount: str = Field(default="secret", pattern=_SEGMENTS)
    path_prefix: str = Field(default="labferry", pattern=_SEGMENTS)
    ca_file: Path | None = None
    timeout_seconds: float = Field(default=10, gt=0, le=60)
    login: Annotated[TokenFileLogin | AppRoleLogin | KubernetesLogin, Field(discriminator="method")]

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError("must be https://HOST:PORT")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _never_in_plaintext_beyond_this_machine(self) -> Self:
        parts = urlsplit(self.address)
        if parts.scheme == "http" and not is_local(f"{parts.hostname}:{parts.port or 80}"):
            raise ValueError("address must be https: secrets never travel in plaintext beyond this machine")
        return self
