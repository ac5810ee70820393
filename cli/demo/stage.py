"""The demo's own ground: a lab, a NAS, a configuration and all state, in one folder, made anew each time."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import yaml

from libs.service_kit.identity import ServiceName

DEFAULT_FOLDER = Path(".demo")
EQUIPMENT = "CONFOCAL_01"
SLOW_EQUIPMENT = "LIGHTSHEET_02"
_SLOW_MBPS = 800
PORTS = {ServiceName.SECRETS: 7401, ServiceName.LIMS_GATEWAY: 7402, ServiceName.SYNC_ENGINE: 7403}
LIMS_EMAIL = "demo@lab.example"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything of one demo lies. `lims_password` is known to the LIMS and, later, to the secrets service."""

    folder: Path
    addresses: dict[ServiceName, str]
    lims_password: str

    @property
    def config(self) -> Path:
        return self.folder / "labferry.yaml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def lab(self) -> Path:
        return self.folder / "lab"

    @property
    def nas(self) -> Path:
        return self.folder / "nas"

    @property
    def password_file(self) -> Path:
        return self.folder / "lims_password"

    def open_log(self, service: ServiceName) -> BinaryIO:
        return open(self.folder / f"{service}.log", "ab")

    @classmethod
    def make(cls, folder: Path) -> Stage:
        """Clears what an earlier demo left, and makes the folders and the passphrase."""
        folder = folder.absolute()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        stage = cls(folder, _addresses(), secrets.token_urlsafe(12))
        for equipment in (EQUIPMENT, SLOW_EQUIPMENT):
            (stage.lab / equipment).mkdir(parents=True)
            (stage.nas / equipment).mkdir(parents=True)
        _private(folder / "passphrase", secrets.token_urlsafe(24))
        _private(stage.password_file, stage.lims_password)
        return stage

    def write_configuration(self, lims_endpoint: str) -> None:
        """labferry.yaml as a lab would write it: embedded defaults, two instruments, one with a bandwidth limit."""
        slow = {"type": "mounted", "path": str(self.nas / SLOW_EQUIPMENT), "bandwidth": {"upload_mbps": _SLOW_MBPS}}
        document = {
            "state_dir": str(self.state),
            "listen": {service.value: address for service, address in self.addresses.items()},
            "secrets": {"backend": "encrypted_file", "passphrase_file": str(self.folder / "passphrase")},
            "lims": {"endpoint": lims_endpoint, "email": LIMS_EMAIL},
            "equipment": [
                {
                    "id": EQUIPMENT,
                    "label": "Confocal Microscope 1",
                    "local_root": str(self.lab),
                    "transport": {"type": "mounted", "path": str(self.nas / EQUIPMENT)},
                },
                {
                    "id": SLOW_EQUIPMENT,
                    "label": "Light-sheet Microscope 2",
                    "local_root": str(self.lab),
                    "transport": slow,
                },
            ],
        }
        self.config.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def _addresses() -> dict[ServiceName, str]:
    """Ports that other programs can call, as the pages do; another free one where one is taken."""
    return {service: _free(f"127.0.0.1:{port}") for service, port in PORTS.items()}


def _free(address: str) -> str:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        try:
            probe.bind((host, int(port)))
        except OSError:
            probe.bind((host, 0))
        return f"{host}:{probe.getsockname()[1]}"


def _private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
