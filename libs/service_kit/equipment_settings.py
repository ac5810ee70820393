"""The settings of one instrument: where its runs lie, where they go, and how they travel."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from libs.service_kit.settings_block import SettingsBlock

EQUIPMENT_ID = re.compile(r"[A-Z][A-Z0-9_]{0,31}")
_SSH_TARGET = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.+-]*@)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


class Weekday(StrEnum):
    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


class BandwidthWindow(SettingsBlock):
    """`from_` <= t < `to`, on `days`, in the workstation's local time."""

    days: tuple[Weekday, ...] = Field(min_length=1)
    from_: str = Field(alias="from")
    to: str

    @field_validator("from_", "to")
    @classmethod
    def _is_clock_time(cls, value: str) -> str:
        if not _CLOCK.fullmatch(value):
            raise ValueError('must be "HH:MM", from 00:00 to 23:59')
        return value

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.from_ >= self.to:
            raise ValueError("from must be earlier than to")
        return self


class Bandwidth(SettingsBlock):
    """`upload_mbps` absent: unlimited. With it and no schedule: always. With a schedule: inside a window only."""

    upload_mbps: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    schedule: tuple[BandwidthWindow, ...] = ()


class MountedTransportSettings(SettingsBlock):
    """A destination that is mounted as a folder. `path` stands for the equipment folder at the destination."""

    type: Literal["mounted"]
    path: Path
    bandwidth: Bandwidth = Bandwidth()

    @field_validator("path")
    @classmethod
    def _is_absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("must be an absolute path")
        return value


class RcloneTransportSettings(SettingsBlock):
    """A destination that rclone reaches. `rclone_config` absent: rclone's own file. `rclone_remote_path` stands for the
    equipment folder at the destination."""

    type: Literal["rclone"]
    rclone_remote: Annotated[str, Field(pattern=r"^\w[\w.+@ -]*$")]
    rclone_remote_path: str
    rclone_config: Path | None = None
    bandwidth: Bandwidth = Bandwidth()

    @field_validator("rclone_config")
    @classmethod
    def _is_absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError("must be an absolute path")
        return value


class RsyncSshTransportSettings(SettingsBlock):
    """A destination that rsync reaches over ssh, with a key and never a password. `known_hosts` absent: ssh's own
    files. `remote_path` stands for the equipment folder at the destination."""

    type: Literal["rsync_ssh"]
    ssh_target: str
    ssh_key_path: Path = Path("~/.ssh/id_ed25519")
    remote_path: str
    ssh_port: int | None = Field(default=None, ge=1, le=65535)
    known_hosts: Path | None = None
    bandwidth: Bandwidth = Bandwidth()

    @field_validator("ssh_target")
    @classmethod
    def _is_target(cls, value: str) -> str:
        if not _SSH_TARGET.fullmatch(value):
            raise ValueError("must be user@host or host, without password, port or path")
        return value

    @field_validator("ssh_key_path", "known_hosts")
    @classmethod
    def _expands_to_absolute(cls, value: Path | None) -> Path | None:
        expanded = value.expanduser() if value is not None else None
        if expanded is not None and (not expanded.is_absolute() or '"' in str(expanded)):
            raise ValueError("must be an absolute path, or begin with ~, without quotation marks")
        return expanded

    @field_validator("remote_path")
    @classmethod
    def _is_absolute(cls, value: str) -> str:
        if not value.startswith("/"):
            raise ValueError("must be an absolute path")
        return value


TRANSPORT_TYPES = ("mounted", "rclone", "rsync_ssh")
TransportSettings = Annotated[
    MountedTransportSettings | RcloneTransportSettings | RsyncSshTransportSettings, Field(discriminator="type")
]


class DestinationSettings(SettingsBlock):
    """One place that keeps copies. `required`: `synced` waits for it; cleanup waits for every one."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")] = "default"
    required: bool = True
    transport: TransportSettings


def _overlap(one: Path | str, other: Path | str) -> bool:
    """Whether one is the other, or lies in it."""
    first, second = (Path(os.path.normpath(path)) for path in (one, other))
    return first.is_relative_to(second) or second.is_relative_to(first)


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def are_one_place(one: SettingsBlock, other: SettingsBlock) -> bool:
    """Whether two transports lead to one folder, or to one that lies in the other, as they are written; rclone's also
    where they may."""
    match one, other:
        case MountedTransportSettings(), MountedTransportSettings():
            return _overlap(one.path, other.path)
        case RcloneTransportSettings(), RcloneTransportSettings():
            same = (one.rclone_remote, one.rclone_config) == (other.rclone_remote, other.rclone_config)
            # A relative path and an absolute one are told apart by few remotes alone; names in either case, or Unicode
            # form, are one to many.
            return same and _overlap(_folded(f"/{one.rclone_remote_path}"), _folded(f"/{other.rclone_remote_path}"))
        case RsyncSshTransportSettings(), RsyncSshTransportSettings():
            same = (one.ssh_target, one.ssh_port) == (other.ssh_target, other.ssh_port)
            return same and _overlap(one.remote_path, other.remote_path)
    return False


class CompletenessSignal(StrEnum):
    SENTINEL_FILE = "sentinel_file"
    MANIFEST = "manifest"


class EquipmentSettings(SettingsBlock):
    """One instrument: where its runs lie and where they go."""

    id: str
    label: str = ""
    local_root: Path
    nas_root: str = ""
    completeness_signal: CompletenessSignal = CompletenessSignal.SENTINEL_FILE
    sentinel_filename: str = "acquisition_complete.flag"
    manifest_filename: str = ""
    max_parallel: int = Field(default=1, ge=1, le=64)
    transport: TransportSettings | None = None
    destinations: tuple[DestinationSettings, ...] = ()

    @field_validator("id")
    @classmethod
    def _is_equipment_id(cls, value: str) -> str:
        if not EQUIPMENT_ID.fullmatch(value):
            raise ValueError("must be 1 to 32 capital letters, digits and underscores, beginning with a letter")
        return value

    @field_validator("local_root")
    @classmethod
    def _is_absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("must be an absolute path")
        return value

    @field_validator("sentinel_filename", "manifest_filename")
    @classmethod
    def _stays_in_the_run(cls, value: str) -> str:
        if value and any(part in ("", ".", "..") for part in value.split("/")):
            raise ValueError("must be a path relative to the run, with / between its names")
        return value

    @model_validator(mode="after")
    def _names_the_file_of_its_signal(self) -> Self:
        if self.completeness_signal is CompletenessSignal.MANIFEST and not self.manifest_filename:
            raise ValueError("completeness_signal manifest needs manifest_filename")
        if self.completeness_signal is CompletenessSignal.SENTINEL_FILE and not self.sentinel_filename:
            raise ValueError("completeness_signal sentinel_file needs sentinel_filename")
        return self

    @model_validator(mode="after")
    def _has_one_kind_of_destination(self) -> Self:
        if self.transport is not None and self.destinations:
            raise ValueError("give transport or destinations, not both")
        if self.transport is None and not self.destinations:
            raise ValueError("needs transport or destinations; nothing says where its runs go")
        names = [d.name for d in self.destinations]
        if len(set(names)) != len(names):
            raise ValueError("two destinations have the same name")
        if self.destinations and not any(d.required for d in self.destinations):
            raise ValueError("at least one destination must be required")
        return self

    @model_validator(mode="after")
    def _keeps_copies_apart(self) -> Self:
        """As the paths are written; where they really lead is looked at by whoever opens them."""
        places = self.all_destinations()
        for place in places:
            if isinstance(place.transport, MountedTransportSettings) and _overlap(
                place.transport.path, self.local_root
            ):
                raise ValueError(
                    f"destination {place.name} ({place.transport.path}) and local_root ({self.local_root}) must not lie"
                    " in each other: a copy there would be the run itself"
                )
        for one, other in combinations(places, 2):
            if are_one_place(one.transport, other.transport):
                raise ValueError(f"destinations {one.name} and {other.name} are one place: one copy would count as two")
        return self

    def all_destinations(self) -> Sequence[DestinationSettings]:
        if self.transport is not None:
            return (DestinationSettings(transport=self.transport),)
        return self.destinations
