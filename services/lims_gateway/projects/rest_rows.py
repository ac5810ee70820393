"""What the LIMS of the REST contract sends (SPEC §6), as projects and accounts. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from services.lims_gateway.projects.project import (
    EpochSeconds,
    Id,
    Name,
    NotAProjectListError,
    Project,
    ProjectRows,
    ProjectStatus,
    RowCollector,
)
from services.lims_gateway.projects.upstream import LimsUser


class _Row(msgspec.Struct):
    """Fields that we don't know are dropped."""

    id: Id
    uid: Name
    short_id: Name
    name: Name
    status: ProjectStatus
    owner: str
    created_at: EpochSeconds
    updated_at: EpochSeconds
    description: str | None = None
    contact_name: str | None = None
    metadata: dict[str, Any] | None = None


class _List(msgspec.Struct):
    data: list[msgspec.Raw] = []


class _User(msgspec.Struct):
    id: Id
    email: str
    uid: str = ""
    role: str = ""
    created_at: EpochSeconds | None = None
    updated_at: EpochSeconds | None = None


def decode_list(body: bytes) -> ProjectRows:
    """Projects of {"data": [row, …]}; a missing `data` is an empty list. NotAProjectListError for anything else.

    A row that lacks a required field, or repeats the uid or short id of an earlier row, is skipped and counted.
    """
    try:
        rows = msgspec.json.decode(body, type=_List).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotAProjectListError("the body is no list of projects") from error
    collector = RowCollector()
    for row in rows:
        collector.take(decode_row(row), row)
    return collector.rows()


def decode_row(row: bytes | msgspec.Raw) -> Project | None:
    """None for a row that lacks a required field or holds another type in its place."""
    try:
        found = msgspec.json.decode(row, type=_Row)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return Project(**msgspec.structs.asdict(found))


def decode_user(body: bytes) -> LimsUser | None:
    """None for what is no account."""
    try:
        user = msgspec.json.decode(body, type=_User)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return LimsUser(user.id, user.email, user.uid, user.role, user.created_at, user.updated_at)
