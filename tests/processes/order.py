"""What the fork server is asked for."""

from __future__ import annotations

import msgspec

ANNOUNCE = "{announce}"
"""Stands among the arguments for the number of the descriptor to announce the address to."""
MOST_BYTES = 128 << 10


class Order(msgspec.Struct, frozen=True):
    """A module to run as `python -m` does, in this folder and with this environment alone."""

    module: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    folder: str

    def arguments_for(self, announce_to: int) -> list[str]:
        return [a.replace(ANNOUNCE, str(announce_to)) for a in self.arguments]
