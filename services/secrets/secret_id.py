"""What a secret is filed under: a service and a username, as in an OS keyring."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_SERVICE = "exlab-wizard"
"""The keyring service name that ExLab-Wizard uses; format 1 of the encrypted file holds no other."""

LIMS_USERNAME = "lims"
LIMS_PREFIX = "lims:"
NAS_PREFIX = "nas:"
PROBE_USERNAME = "_exlab_probe"
"""Written and removed again to find out whether a keyring works. Never anybody's secret."""


@dataclass(frozen=True, slots=True)
class SecretId:
    """Names one secret. `service` holds no "/", so the stream's name can be read back unambiguously."""

    service: str
    username: str

    @property
    def stream(self) -> str:
        """The stream of the event log that keeps this secret's history."""
        return f"secret-{self.service}/{self.username}"
