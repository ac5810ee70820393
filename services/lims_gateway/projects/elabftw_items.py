"""What eLabFTW's REST API v2 sends (its published OpenAPI description), as projects and accounts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from services.lims_gateway.projects.project import (
    Id,
    Name,
    NotAProjectListError,
    Project,
    ProjectRows,
    ProjectStatus,
    RowCollector,
)
from services.lims_gateway.projects.upstream import LimsUser

SHORT_ID_PREFIX = "ELAB-"
_ARCHIVED = 2
_DELETED = 3
_BY_TITLE = {status.value.casefold(): status for status in ProjectStatus}


class _Item(msgspec.Struct):
    """A resource. `state`: 1 normal, 2 archived, 3 deleted. Times are the server's own, without a zone."""

    id: Id
    elabid: Name
    title: Name
    category: int | None
    created_at: str
    modified_at: str
    state: int = 1
    status_title: str | None = None
    fullname: str = ""
    metadata: Any = None


class _Numbered(msgspec.Struct):
    id: int


class _User(msgspec.Struct):
    userid: Id
    email: str
    is_sysadmin: int = 0


def decode_page(body: bytes) -> Sequence[msgspec.Raw]:
    """The rows of one page. NotAProjectListError for what is no list."""
    try:
        return msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotAProjectListError("the body is no list of resources") from error


def id_of(row: msgspec.Raw) -> int | None:
    """The number of a resource; None when the row has none."""
    try:
        return msgspec.json.decode(row, type=_Numbered).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def decode_items(rows: Sequence[msgspec.Raw], statuses: Mapping[str, ProjectStatus], category_id: int) -> ProjectRows:
    """Projects of the rows of all pages; unusable rows are counted. `statuses`: what the titles of statuses mean."""
    collector = RowCollector()
    for row in rows:
        collector.take(decode_item(row, statuses, category_id), row)
    return collector.rows()


def decode_item(row: bytes | msgspec.Raw, statuses: Mapping[str, ProjectStatus], category_id: int) -> Project | None:
    """None for what lacks a required field, was deleted, or belongs to another category than `category_id`."""
    try:
        item = msgspec.json.decode(row, type=_Item)
        created, modified = (_seconds(text) for text in (item.created_at, item.modified_at))
    except (ValueError, RecursionError):
        return None
    if item.state == _DELETED or item.category != category_id:
        return None
    return Project(
        id=item.id,
        uid=item.elabid,
        short_id=f"{SHORT_ID_PREFIX}{item.id}",
        name=item.title,
        status=ProjectStatus.ARCHIVED if item.state == _ARCHIVED else _status(item.status_title, statuses),
        owner=item.fullname,
        created_at=created,
        updated_at=modified,
        metadata=_metadata(item.metadata),
    )


def decode_user(body: bytes) -> LimsUser | None:
    """None for what is no account."""
    try:
        user = msgspec.json.decode(body, type=_User)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return LimsUser(user.userid, user.email, role="sysadmin" if user.is_sysadmin else "user")


def _status(title: str | None, statuses: Mapping[str, ProjectStatus]) -> ProjectStatus:
    """A lab gives its statuses any titles it likes; one that says nothing to us is an active project's."""
    if title is None:
        return ProjectStatus.ACTIVE
    return statuses.get(title) or _BY_TITLE.get(title.casefold(), ProjectStatus.ACTIVE)


def _seconds(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()


def _metadata(sent: Any) -> dict[str, Any] | None:
    """An object, or the same as text: the description says one, lists carry the other. Anything else is nothing."""
    if isinstance(sent, str):
        try:
            sent = msgspec.json.decode(sent)
        except (msgspec.DecodeError, RecursionError):
            return None
    return sent if isinstance(sent, dict) and sent else None
