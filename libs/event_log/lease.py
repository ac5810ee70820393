"""Leases: which replica does a piece of work, for how long, and how the log refuses one that lost it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from libs.event_log.store import LeaseFence


@dataclass(frozen=True, slots=True)
class Lease:
    """A piece of work, lent to one holder.

    `token` is greater than that of every earlier lease of this name. `believed_until` is by this machine's
    `boot_seconds`, and never later than the end by the leases' own clock: whoever couldn't renew until then stops.
    """

    name: str
    holder: str
    token: int
    believed_until: float

    @property
    def fence(self) -> LeaseFence:
        """For appends that only the holder may make."""
        return LeaseFence(self.name, self.token)


class Leases(Protocol):
    """Lends each name to one holder at a time. Where replicas share a log, the database's clock ends a lease.

    A holder's name is its own: a process that starts again is another holder. Errors of every method: those of a read
    of the log. An answer may take longer than the lease lasts, so a holder looks at `believed_until` by itself.
    """

    async def acquire(self, name: str, holder: str, seconds: float) -> Lease | None:
        """A lease of so many seconds; None while somebody else has it.

        Whoever has it already gets a new one, and its earlier token is worth nothing any more: an answer that was lost
        on its way does no harm.
        """

    async def renew(self, lease: Lease, seconds: float) -> Lease:
        """The same lease, so many seconds from now. LeaseLostError when it ended, or is somebody else's."""

    async def release(self, lease: Lease) -> None:
        """Ends it now. One that is lost already stays so."""

    async def holder(self, name: str) -> str | None:
        """Who has it now; None when nobody has."""
