"""A LIMS project, whatever kind of LIMS it comes from. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

import msgspec


class ProjectStatus(StrEnum):
    """As the REST contract spells it."""

    PENDING = "Pending"
    ACTIVE = "Active"
    COMPLETED = "Completed"
    ARCHIVED = "Archived"


Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"\A[^\x00]*\Z")]
"""What can be asked for, put into a page token, and kept in a log."""

EpochSeconds = Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799)]
"""What a protobuf Timestamp can carry."""


class Project(msgspec.Struct, frozen=True):
    """Times are seconds since the epoch. The catalogue carries neither `id` (0 then) nor the times of the LIMS."""

    uid: str
    short_id: str
    name: str
    status: ProjectStatus
    id: int = 0
    owner: str = ""
    created_at: float | None = None
    updated_at: float | None = None
    description: str | None = None
    contact_name: str | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ProjectRows:
    """What a LIMS sent: the projects, and how many rows could not be taken.

    `skipped_uids` are those of such rows where they could be read: their projects are there, though unusable.
    """

    projects: Sequence[Project]
    skipped: int = 0
    skipped_uids: frozenset[str] = field(default_factory=frozenset)


class NotAProjectListError(ValueError):
    """The body is no project list."""


class RowCollector:
    """Takes the rows of a list one by one. One that repeats the uid or short id of an earlier one is skipped."""

    def __init__(self) -> None:
        self._projects: list[Project] = []
        self._seen: set[str] = set()
        self._skipped = 0
        self._skipped_uids: set[str] = set()

    def take(self, project: Project | None, row: bytes | msgspec.Raw) -> None:
        """`project` None: the row can't be used."""
        if project is not None and project.uid not in self._seen and project.short_id not in self._seen:
            self._seen.update((project.uid, project.short_id))
            self._projects.append(project)
            return
        self._skipped += 1
        uid = _uid_of(row)
        if uid is not None:
            self._skipped_uids.add(uid)

    def rows(self) -> ProjectRows:
        return ProjectRows(self._projects, self._skipped, frozenset(self._skipped_uids))


class _UidOnly(msgspec.Struct):
    uid: str | None = None
    elabid: str | None = None


def _uid_of(row: bytes | msgspec.Raw) -> str | None:
    try:
        found = msgspec.json.decode(row, type=_UidOnly)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found.uid or found.elabid
