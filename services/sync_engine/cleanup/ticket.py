"""What one deletion may take: each file by size, time and hash, for a short time, within limits. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.sync_engine.transfer.transport import CopiedFile

TICKET_SECONDS = 3600.0
"""Evidence older than an hour allows nothing (SPEC §4); counted on a clock that nobody can set and that goes on while
the machine sleeps."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The files that may be deleted, sorted by path, as they lie on this machine and as each destination was proven to
    hold them."""

    files: Sequence[CopiedFile]

    @property
    def file_count(self) -> int:
        return len(self.files)

    @property
    def byte_count(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Limits:
    """Breakers. A run with more files or bytes isn't cleaned before the limit is raised. A deletion in which more than
    `refused_fraction` of the files are not what the ticket says is ended: something else is at work there."""

    max_files: int
    max_bytes: int
    refused_fraction: float = 0.05

    def exceeded_by(self, ticket: Ticket) -> str:
        """Which limit the ticket breaks, one plain sentence; empty: none."""
        if ticket.file_count > self.max_files:
            return f"{ticket.file_count} files are more than nas_cleanup.max_files ({self.max_files})"
        if ticket.byte_count > self.max_bytes:
            return f"{ticket.byte_count} bytes are more than nas_cleanup.max_bytes ({self.max_bytes})"
        return ""

    def too_many_refused(self, refused: int, ticket: Ticket) -> bool:
        """Whether a deletion is to be ended."""
        return refused > self.refused_fraction * ticket.file_count
