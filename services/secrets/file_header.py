"""What an encrypted file says about itself in the clear: its version, and how its key is made of the passphrase."""

from __future__ import annotations

import os
from dataclasses import dataclass

SALT_BYTES = 16
FIRST_VERSION, LAST_VERSION = 1, 2


@dataclass(frozen=True, slots=True)
class Header:
    """The parameters of Argon2id: those that version 1 prescribes, unless a file of version 2 names others."""

    version: int
    salt: bytes
    time_cost: int = 3
    memory_kib: int = 65_536
    parallelism: int = 4

    @property
    def holds_every_service(self) -> bool:
        return self.version > FIRST_VERSION


def new_header(version: int) -> Header:
    """Under a fresh salt."""
    return Header(version, os.urandom(SALT_BYTES))
