"""The keys of labferry.yaml (SPEC §10), typed. Reading the file is `config.py`'s business."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from libs.service_kit.postgres_url import check_postgres_url

SQLITE = "sqlite"
EQUIPMENT_ID = re.compile(r"[A-Z][A-Z0-9_]{0,31}")
_HOST_AND_PORT = re.compile(
    r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+):(6553[0-5]|655[0-2]\d|65[0-4]\d\d|6[0-4]\d{3}|[1-5]\d{4}|\d{1,4})"
)
_SSH_TARGET = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.+-]*@)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Weekday(StrEnum):
    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


class BandwidthWindow(_Block):
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


class Bandwidth(_Block):
    """`upload_mbps` absent: unlimited. With it and no schedule: always. With a schedule: inside a window only."""

    upload_mbps: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    schedule: tuple[BandwidthWindow, ...] = ()


class MountedTransportSettings(_Block):
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


class RcloneTransportSettings(_Block):
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


class RsyncSshTransportSettings(_Block):
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


class DestinationSettings(_Block):
    """One place that keeps copies. `required`: `synced` waits for it; cleanup waits for every one."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")] = "default"
    required: bool = True
    transport: TransportSettings


class CompletenessSignal(StrEnum):
    SENTINEL_FILE = "sentinel_file"
    MANIFEST = "manifest"


class EquipmentSettings(_Block):
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

    def all_destinations(self) -> Sequence[DestinationSettings]:
        if self.transport is not None:
            return (DestinationSettings(transport=self.transport),)
        return self.destinations


class ListenSettings(_Block):
    """Where each service listens: "host:port" on loopback, or "unix:/path"."""

    secrets: str = "127.0.0.1:7401"
    lims_gateway: str = "127.0.0.1:7402"
    sync_engine: str = "127.0.0.1:7403"

    @field_validator("*")
    @classmethod
    def _is_local(cls, value: str) -> str:
        if value.startswith("unix:"):
            if not value.removeprefix("unix:").startswith("/"):
                raise ValueError("a unix socket needs an absolute path: unix:/path")
            return value
        host, colon, port = value.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:
            raise ValueError('must be "host:port" or "unix:/path"')
        if not _is_loopback(host):
            raise ValueError("must be a loopback address: tokens never travel in plaintext beyond this machine")
        return value

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        addresses = [a for a in (self.secrets, self.lims_gateway, self.sync_engine) if not a.endswith(":0")]
        if len(set(addresses)) != len(addresses):
            raise ValueError("two services share an address")
        return self


class MetricsListenSettings(_Block):
    """Where each service answers GET /metrics: "host:port". Absent: nowhere."""

    secrets: str | None = None
    lims_gateway: str | None = None
    sync_engine: str | None = None

    @field_validator("*")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None and not _HOST_AND_PORT.fullmatch(value):
            raise ValueError('must be "host:port"')
        return value


class MetricsSettings(_Block):
    """Figures for Prometheus, in plaintext and for anybody who reaches the address: so beyond loopback only when
    `beyond_loopback` says that this is meant."""

    listen: MetricsListenSettings = MetricsListenSettings()
    beyond_loopback: bool = False

    @model_validator(mode="after")
    def _is_loopback_unless_meant(self) -> Self:
        for name, address in self.listen.model_dump().items():
            if address is not None and not self.beyond_loopback and not _is_loopback(address.rpartition(":")[0]):
                raise ValueError(f"{name} would be reached from other machines; beyond_loopback: true allows that")
        return self


class CheckpointSettings(_Block):
    """Where signed checkpoints of a log go beside the state folder, and when: whichever comes first."""

    folders: tuple[Path, ...] = ()
    every_events: int = Field(default=10_000, ge=1)
    every_minutes: float = Field(default=15, gt=0, allow_inf_nan=False)

    @field_validator("folders")
    @classmethod
    def _are_absolute(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        if not all(folder.is_absolute() for folder in value):
            raise ValueError("must be absolute paths")
        return value


class EventLogSettings(_Block):
    """`url`: "sqlite", one file a service in its state folder; or a PostgreSQL database, a schema a service.

    `blob_folder`: where larger evidence lies, a subfolder a service; absent, in each service's state folder. Engines
    that share a log share this folder too.
    """

    url: str = SQLITE
    blob_folder: Path | None = None
    checkpoints: CheckpointSettings = CheckpointSettings()

    @field_validator("url")
    @classmethod
    def _is_known(cls, value: str) -> str:
        return value if value == SQLITE else check_postgres_url(value)


class SecretsBackend(StrEnum):
    AUTO = "auto"
    OS_KEYRING = "os_keyring"
    ENCRYPTED_FILE = "encrypted_file"


class SecretsSettings(_Block):
    """`file` absent: <state_dir>/exlab-wizard/secrets.enc. `passphrase_file` absent: sealed until Unseal."""

    backend: SecretsBackend = SecretsBackend.AUTO
    passphrase_file: Path | None = None
    file: Path | None = None


class LimsSettings(_Block):
    """`endpoint` empty: no LIMS."""

    endpoint: str = ""
    email: str = ""
    cache_ttl_hours: float = Field(default=24, gt=0)
    offline_catalogue_path: str = ""
    ca_file: Path | None = None

    @field_validator("endpoint")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", value):
            raise ValueError("must be an http or https address without query")
        try:
            # Reading the port checks host and port.
            _ = urlsplit(value).port
        except ValueError as error:
            raise ValueError(f"is no address: {error}") from error
        return value

    @model_validator(mode="after")
    def _has_email(self) -> Self:
        if self.endpoint and not self.email:
            raise ValueError("email is needed to log in at the endpoint")
        return self


class CleanupSettings(_Block):
    """When local data is deleted. `max_files` and `max_bytes`: a run with more is not cleaned."""

    enabled: bool = False
    min_verify_passes: int = Field(default=2, ge=1, le=100)
    min_age_hours: float = Field(default=24, ge=0, allow_inf_nan=False)
    retain_cache: bool = True
    max_files: int = Field(default=1_000_000, ge=1)
    max_bytes: int = Field(default=16 << 40, ge=1)


class VerifySettings(_Block):
    max_stream_bytes: int = Field(default=1 << 30, ge=1)
    audit_interval_hours: float = Field(default=24, gt=0)
    scrub_interval_days: float | None = Field(default=None, gt=0)


class ValidatorSettings(_Block):
    """Which rendered files are scanned for leftovers of templates."""

    content_scan_max_mib: float = Field(default=5, gt=0)
    content_scan_extensions: tuple[str, ...] = (
        *(".txt", ".md", ".csv", ".tsv", ".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".xml", ".sh"),
        ".py",
    )

    @field_validator("content_scan_extensions")
    @classmethod
    def _begin_with_dot(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [e for e in value if not e.startswith(".")]
        if wrong:
            raise ValueError(f"each must begin with a dot: {', '.join(wrong)}")
        return value


class TransferSettings(_Block):
    """Seconds without a byte after which a transfer is ended; seconds that files in flight get when the engine ends;
    the jobs in work in all, beyond the one that each equipment may always have; and, where several engines share a
    log, the seconds after which one that can't reach it ends its work."""

    stall_timeout: float = Field(default=300, gt=0)
    drain_timeout: float = Field(default=15, ge=0)
    max_parallel: int = Field(default=16, ge=1, le=1024)
    lease_seconds: float = Field(default=30, ge=1)


class ReadmeField(_Block):
    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    label: str
    type: Literal["string", "text", "choice", "date", "boolean"] = "string"
    required: bool = False
    default: str | bool | None = None
    options: tuple[str, ...] = ()
    hint: str = ""


class ReadmeSettings(_Block):
    defaults: tuple[ReadmeField, ...] = ()


class StagingCleanup(_Block):
    mode: Literal["manual", "scheduled"] = "manual"
    retain_hours: float = Field(default=24, ge=1)


class OrchestratorSettings(_Block):
    label: str = ""
    staging_root: str = ""
    settle_seconds: float = Field(default=30, ge=0)
    staging_cleanup: StagingCleanup = StagingCleanup()


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class LoggingSettings(_Block):
    level: LogLevel = LogLevel.INFO
    format: Literal["json", "console"] = "json"

    @field_validator("level", mode="before")
    @classmethod
    def _knows_warn(cls, value: object) -> object:
        return "WARNING" if value == "WARN" else value


class Settings(_Block):
    """The whole of labferry.yaml."""

    state_dir: Path
    listen: ListenSettings = ListenSettings()
    metrics: MetricsSettings = MetricsSettings()
    event_log: EventLogSettings = EventLogSettings()
    secrets: SecretsSettings = SecretsSettings()
    lims: LimsSettings = LimsSettings()
    equipment: tuple[EquipmentSettings, ...] = ()
    nas_cleanup: CleanupSettings = CleanupSettings()
    transfer: TransferSettings = TransferSettings()
    verify: VerifySettings = VerifySettings()
    validator: ValidatorSettings = ValidatorSettings()
    readme: ReadmeSettings = ReadmeSettings()
    orchestrator: OrchestratorSettings = OrchestratorSettings()
    logging: LoggingSettings = LoggingSettings()

    def blobs_of(self, service: str) -> Path:
        """The folder of a service's blobs."""
        shared = self.event_log.blob_folder
        return self.state_dir / service / "blobs" if shared is None else shared / service

    @field_validator("state_dir")
    @classmethod
    def _is_absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("must be an absolute path")
        return value

    @field_validator("equipment")
    @classmethod
    def _differ_by_more_than_case(cls, value: tuple[EquipmentSettings, ...]) -> tuple[EquipmentSettings, ...]:
        seen: set[str] = set()
        for equipment in value:
            if equipment.id.upper() in seen:
                raise ValueError(f"{equipment.id} is configured twice")
            seen.add(equipment.id.upper())
        return value
