"""The keys of labferry.yaml (SPEC §10), typed. Reading the file is `config.py`'s business."""

from __future__ import annotations

from enum import StrEnum
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from libs.service_kit.equipment_settings import EquipmentSettings, are_one_place
from libs.service_kit.lims_settings import LimsSettings
from libs.service_kit.listen_settings import ConnectSettings, HealthSettings, ListenSettings, MetricsSettings, is_local
from libs.service_kit.openbao_settings import OpenBaoSettings
from libs.service_kit.postgres_url import check_postgres_url
from libs.service_kit.settings_block import SettingsBlock, WrongBelowError
from libs.service_kit.tls_settings import TlsSettings

SQLITE = "sqlite"


class CheckpointSettings(SettingsBlock):
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


class EventLogSettings(SettingsBlock):
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
    OPENBAO = "openbao"


class SecretsSettings(SettingsBlock):
    """`file` absent: <state_dir>/exlab-wizard/secrets.enc. `passphrase_file` absent: sealed until Unseal.

    `lease_seconds`: the term of a lease; who holds one and dies has lost it after so long.
    """

    backend: SecretsBackend = SecretsBackend.AUTO
    passphrase_file: Path | None = None
    file: Path | None = None
    lease_seconds: float = Field(default=60, ge=1, le=3600)
    openbao: OpenBaoSettings | None = None

    @model_validator(mode="after")
    def _says_where_openbao_is(self) -> Self:
        if self.backend is SecretsBackend.OPENBAO and self.openbao is None:
            raise ValueError("backend openbao needs the block openbao")
        return self


class CleanupSettings(SettingsBlock):
    """When local data is deleted. `max_files` and `max_bytes`: a run with more is not cleaned. `delete_without_lease`:
    also files of which nobody can tell whether another program has them open for writing."""

    enabled: bool = False
    min_verify_passes: int = Field(default=2, ge=1, le=100)
    min_age_hours: float = Field(default=24, ge=0, allow_inf_nan=False)
    retain_cache: bool = True
    max_files: int = Field(default=1_000_000, ge=1)
    max_bytes: int = Field(default=16 << 40, ge=1)
    delete_without_lease: bool = False


class VerifySettings(SettingsBlock):
    max_stream_bytes: int = Field(default=1 << 30, ge=1)
    audit_interval_hours: float = Field(default=24, gt=0)
    scrub_interval_days: float | None = Field(default=None, gt=0)


class ValidatorSettings(SettingsBlock):
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


class TransferSettings(SettingsBlock):
    """Seconds without a byte after which a transfer is ended; seconds that files in flight get when the engine ends;
    the jobs in work in all, beyond the one that each equipment may always have; and, where several engines share a
    log, the seconds after which one that can't reach it ends its work."""

    stall_timeout: float = Field(default=300, gt=0)
    drain_timeout: float = Field(default=15, ge=0)
    max_parallel: int = Field(default=16, ge=1, le=1024)
    lease_seconds: float = Field(default=30, ge=1)


class ReadmeField(SettingsBlock):
    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    label: str
    type: Literal["string", "text", "choice", "date", "boolean"] = "string"
    required: bool = False
    default: str | bool | None = None
    options: tuple[str, ...] = ()
    hint: str = ""


class ReadmeSettings(SettingsBlock):
    defaults: tuple[ReadmeField, ...] = ()


class StagingCleanup(SettingsBlock):
    """When the data of proven runs is deleted below the staging root: when an operator asks, or so many hours after."""

    mode: Literal["manual", "scheduled"] = "manual"
    retain_hours: float = Field(default=24, ge=1, allow_inf_nan=False)


class OrchestratorSettings(SettingsBlock):
    """Where instruments push their runs, and how long a run must be quiet to be complete. `staging_root` empty: staging
    is off."""

    label: str = ""
    staging_root: str = ""
    settle_seconds: float = Field(default=30, ge=0, allow_inf_nan=False)
    staging_cleanup: StagingCleanup = StagingCleanup()

    @field_validator("staging_root")
    @classmethod
    def _is_absolute(cls, value: str) -> str:
        if value and not Path(value).is_absolute():
            raise ValueError("must be an absolute path, or empty")
        return value

    @property
    def staging_folder(self) -> Path | None:
        """None: staging is off."""
        return Path(self.staging_root) if self.staging_root else None


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class LoggingSettings(SettingsBlock):
    level: LogLevel = LogLevel.INFO
    format: Literal["json", "console"] = "json"

    @field_validator("level", mode="before")
    @classmethod
    def _knows_warn(cls, value: object) -> object:
        return "WARNING" if value == "WARN" else value


class Settings(SettingsBlock):
    """The whole of labferry.yaml."""

    state_dir: Path
    listen: ListenSettings = ListenSettings()
    connect: ConnectSettings = ConnectSettings()
    health: HealthSettings = HealthSettings()
    tls: TlsSettings | None = None
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

    def reached_at(self, service: str) -> str:
        """The address at which a service is called."""
        connect: str | None = getattr(self.connect, service)
        return connect or self.listens_at(service)

    def listens_at(self, service: str) -> str:
        """The address at which a service listens."""
        listen: str = getattr(self.listen, service)
        return listen or f"unix:{self.state_dir / service / f'{service}.sock'}"

    @model_validator(mode="after")
    def _keeps_equipment_apart(self) -> Self:
        """As the places are written; where mounted ones really lead is looked at by whoever opens them."""
        places = [(e.id, d) for e in self.equipment for d in e.all_destinations()]
        for (one, here), (other, there) in combinations(places, 2):
            if one != other and are_one_place(here.transport, there.transport):
                raise ValueError(
                    f"destination {here.name} of {one} and destination {there.name} of {other} are one place, or one"
                    " lies in the other: their runs would meet there, and one be written over the other"
                )
        return self

    @model_validator(mode="after")
    def _never_in_plaintext_beyond_this_machine(self) -> Self:
        if self.tls is None:
            for service in ("secrets", "lims_gateway", "sync_engine"):
                for key, address in (("listen", self.listens_at(service)), ("connect", self.reached_at(service))):
                    if not is_local(address):
                        raise WrongBelowError(
                            (key, service),
                            "must be a loopback address or a Unix socket while there is no tls: tokens never travel in"
                            " plaintext beyond this machine",
                        )
        return self

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
        for number, equipment in enumerate(value):
            if equipment.id.upper() in seen:
                raise WrongBelowError((number, "id"), f"{equipment.id} is configured twice")
            seen.add(equipment.id.upper())
        return value
