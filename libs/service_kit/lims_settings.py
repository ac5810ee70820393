"""The settings of a LIMS: where it is, what kind it is, and how its projects are kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from libs.service_kit.settings_block import SettingsBlock

_ADDRESS = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")
_SECRET = re.compile(r"lims(:[A-Za-z0-9_.-]{1,64})?")


def base_of(endpoint: str) -> str:
    """The part before /api/v1 or /api/v2: an endpoint with or without it, or with a slash at the end, is the same."""
    return endpoint.rstrip("/").removesuffix("/api/v1").removesuffix("/api/v2").rstrip("/")


class LimsKind(StrEnum):
    """`rest`: the REST contract with cookie sessions. `elabftw`: eLabFTW's REST API v2, with an API key."""

    REST = "rest"
    ELABFTW = "elabftw"


class LimsEndpointSettings(SettingsBlock):
    """One LIMS. `secret`: the name under which its password or API key is kept in the secrets service.

    `category_id`: the resource category of eLabFTW whose entries are projects. `statuses`: what the titles of eLabFTW's
    statuses mean; titles that aren't named and are none of the four mean active.
    `refresh_while_watched_minutes`: how often the LIMS is asked while somebody follows its projects.
    """

    endpoint: str
    kind: LimsKind = LimsKind.REST
    email: str = ""
    secret: str = "lims"
    cache_ttl_hours: float = Field(default=24, gt=0, allow_inf_nan=False)
    refresh_while_watched_minutes: float = Field(default=15, gt=0, allow_inf_nan=False)
    offline_catalogue_path: str = ""
    ca_file: Path | None = None
    category_id: int | None = Field(default=None, ge=1)
    statuses: Mapping[str, Literal["pending", "active", "completed", "archived"]] = Field(default_factory=dict)

    @field_validator("endpoint")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value and not _ADDRESS.fullmatch(value):
            raise ValueError("must be an http or https address without query, user name and password")
        try:
            # Reading the port checks host and port.
            _ = urlsplit(value).port
        except ValueError as error:
            raise ValueError(f"is no address: {error}") from error
        return value

    @field_validator("secret")
    @classmethod
    def _is_readable_by_the_gateway(cls, value: str) -> str:
        if not _SECRET.fullmatch(value):
            raise ValueError('must be "lims" or "lims:NAME": the gateway may read no other')
        return value

    @field_validator("offline_catalogue_path")
    @classmethod
    def _is_absolute(cls, value: str) -> str:
        if value and not Path(value).is_absolute():
            raise ValueError("must be an absolute path")
        return value

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        if self.endpoint and self.kind is LimsKind.REST and not self.email:
            raise ValueError("email is needed to log in at the endpoint")
        if self.endpoint and self.kind is LimsKind.ELABFTW and self.category_id is None:
            raise ValueError("category_id is needed to tell eLabFTW's projects from its other resources")
        return self


class LimsSettings(LimsEndpointSettings):
    """The default LIMS, and any others. `endpoint` empty: no LIMS."""

    endpoint: str = ""
    others: tuple[LimsEndpointSettings, ...] = ()

    def all(self) -> Iterator[LimsEndpointSettings]:
        """Every configured LIMS, the default one first."""
        if self.endpoint:
            yield self
        yield from self.others

    @model_validator(mode="after")
    def _are_told_apart(self) -> Self:
        if self.others and not self.endpoint:
            raise ValueError("endpoint is needed where there are others: it is the default one")
        seen: set[str] = set()
        for lims in self.all():
            if not lims.endpoint:
                raise ValueError("endpoint is missing in others")
            names = {base_of(lims.endpoint), lims.offline_catalogue_path} - {""}
            if names & seen:
                raise ValueError(f"{', '.join(sorted(names & seen))} is configured twice")
            seen |= names
        return self
