"""A LIMS project, and how a row of the LIMS becomes one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import msgspec


class ProjectStatus(StrEnum):
    """As the LIMS spells it."""

    PENDING = "Pending"
    ACTIVE = "Active"
    COMPLETED = "Completed"
    ARCHIVED = "Archived"


_Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
# What a protobuf Timestamp can carry.
_EpochSeconds = Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799)]


class Project(msgspec.Struct, frozen=True):
    """A row of the LIMS (SPEC §6). Times are seconds since the epoch. Fields that we don't know are dropped."""

    id: _Id
    uid: str
    short_id: str
    name: str
    status: ProjectStatus
    owner: str
    created_at: _EpochSeconds
    updated_at: _EpochSeconds
    description: str | None = None
    contact_name: str | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ProjectRows:
    """What a LIMS sent: the projects, and how many rows could not be taken."""

    projects: Sequence[Project]
    skipped: int


class NotAProjectListError(ValueError):
    """The body is no project list."""


class _List(msgspec.Struct):
    data: list[msgspec.Raw] = []


def decode_list(body: bytes) -> ProjectRows:
    """Projects of {"data": [row, …]}; a missing `data` is an empty list. NotAProjectListError for anything else.

    A row that lacks a required field, or repeats the uid or short id of an earlier row, is skipped and counted.
    """
    try:
        rows = msgspec.json.decode(body, type=_List).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotAProjectListError("the body is no list of projects") from error
    projects: list[Project] = []
    seen: set[str] = set()
    for row in rows:
        project = decode_row(row)
        if project is None or project.uid in seen or project.short_id in seen:
            continue
        seen.update((project.uid, project.short_id))
        projects.append(project)
    return ProjectRows(projects, len(rows) - len(projects))


def decode_row(row: bytes | msgspec.Raw) -> Project | None:
    """None for a row that lacks a required field or holds another type in its place."""
    try:
        project = msgspec.json.decode(row, type=Project)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return project if project.uid and project.short_id and project.name else None
