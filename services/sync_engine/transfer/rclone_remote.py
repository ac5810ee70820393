"""A remote of rclone's configuration, and what rclone knows of its backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.sync_engine.transfer.rclone_daemon import RcloneDaemon
from services.sync_engine.transfer.rclone_start import ConfigPassword, no_config_password

_MOST_ALIASES = 10


@dataclass(frozen=True, slots=True)
class RcloneRemote:
    """`name` as rclone's configuration has it; `config` None: rclone's own file.

    `config_password` lends the password of an encrypted one.
    """

    name: str
    path: str
    config: Path | None = None
    config_password: ConfigPassword = no_config_password


def backend_encoding(daemon: RcloneDaemon, name: str) -> str:
    """The backend's own encoding, or what the configuration says instead. An alias leads to another remote."""
    for _ in range(_MOST_ALIASES):
        options = daemon.must("reading its configuration", "config/get", name=name)
        if options.get("type") != "alias":
            break
        name = str(options.get("remote", "")).partition(":")[0]
    providers = daemon.must("asking for its backends", "config/providers")["providers"]
    defaults = {
        option["DefaultStr"]
        for provider in providers
        if provider["Name"] == options.get("type", "local")
        for option in provider["Options"]
        if option["Name"] == "encoding"
    }
    return str(options.get("encoding") or next(iter(defaults), ""))
