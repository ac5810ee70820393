"""The contract of a LIMS: what the gateway reads from one, of whatever kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from services.lims_gateway.projects.project import Project, ProjectRows


@dataclass(frozen=True, slots=True)
class LimsUser:
    """The gateway's account in the LIMS. Times are seconds since the epoch; None when the LIMS doesn't say."""

    id: int
    email: str
    uid: str = ""
    role: str = ""
    created_at: float | None = None
    updated_at: float | None = None


class Upstream(Protocol):
    """One LIMS, strictly read-only. Every method raises LimsUnreachableError, LimsLoginRefusedError or
    PasswordUnavailableError.
    """

    async def projects(self) -> ProjectRows:
        """All projects. An answer that is no project list counts as unreachable, never as an empty list."""

    async def project(self, id_: str) -> Project | None:
        """One project by uid or short id; None when the LIMS has none."""

    async def current_user(self) -> LimsUser:
        """Whose account this is. That it answers is also what CheckHealth looks for."""

    async def close(self) -> None: ...
