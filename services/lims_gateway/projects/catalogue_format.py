"""The catalogue: the JSON file that carries a LIMS's projects to machines that can't reach it (FORMATS §9). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from libs.service_kit.lims_settings import base_of
from services.lims_gateway.projects.project import Name, Project, ProjectRows, ProjectStatus, RowCollector

SCHEMA_VERSION = "1.0"
_BY_NAME = {status.value.casefold(): status for status in ProjectStatus}


class CatalogueUnusableError(ValueError):
    """The file is no catalogue of this version for this LIMS. The message says which of these."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """`produced_ns` and `fetched_ns` are nanoseconds since the epoch; None when the file doesn't say."""

    produced_by: str
    produced_ns: int | None
    fetched_ns: int | None
    rows: ProjectRows


class _Version(msgspec.Struct):
    schema_version: str


class _File(msgspec.Struct):
    lims_endpoint: str
    projects: list[msgspec.Raw]
    produced_by: str = ""
    produced_at: str = ""


class _Row(msgspec.Struct):
    """What other producers may leave out has a default; `members` and other fields that we don't know are dropped."""

    uid: Name
    short_id: Name
    name: Name
    status: str
    description: str | None = None
    contact_name: str | None = None
    contact: str | None = None
    owner: str | None = None
    metadata: dict[str, Any] | None = None
    fetched_at: str | None = None


def encode_catalogue(
    endpoint: str, produced_by: str, produced_ns: int, fetched_ns: int, projects: Sequence[Project]
) -> bytes:
    """Every key in every row: the wizard rejects the whole file for one that lacks one."""
    fetched_at = _text(fetched_ns)
    rows = [
        {
            "uid": project.uid,
            "short_id": project.short_id,
            "name": project.name,
            "description": project.description,
            "status": project.status.value,
            "contact_name": project.contact_name,
            "owner": project.owner,
            "metadata": project.metadata or {},
            "fetched_at": fetched_at,
        }
        for project in projects
    ]
    document = {
        "schema_version": SCHEMA_VERSION,
        "produced_by": produced_by,
        "produced_at": _text(produced_ns),
        "lims_endpoint": endpoint,
        "projects": rows,
    }
    return msgspec.json.encode(document)


def decode_catalogue(content: bytes, endpoint: str) -> Catalogue:
    """CatalogueUnusableError for what is no catalogue of version 1.0 for this endpoint. Bad rows are counted."""
    text = content.removeprefix(b"\xef\xbb\xbf")
    try:
        version = msgspec.json.decode(text, type=_Version).schema_version
        if version != SCHEMA_VERSION:
            raise CatalogueUnusableError(f"its schema version is {version!r}, not {SCHEMA_VERSION!r}")
        file = msgspec.json.decode(text, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CatalogueUnusableError(f"it is no catalogue: {error}") from error
    if base_of(file.lims_endpoint) != base_of(endpoint):
        raise CatalogueUnusableError(f"it belongs to the LIMS at {file.lims_endpoint}")
    collector = RowCollector()
    newest: int | None = None
    for row in file.projects:
        project, fetched_ns = _decode_row(row)
        collector.take(project, row)
        if project is not None and fetched_ns is not None:
            newest = max(newest or 0, fetched_ns)
    produced_ns = _nanoseconds(file.produced_at)
    return Catalogue(file.produced_by, produced_ns, newest if newest is not None else produced_ns, collector.rows())


def _decode_row(row: msgspec.Raw) -> tuple[Project | None, int | None]:
    try:
        found = msgspec.json.decode(row, type=_Row)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, None
    status = _BY_NAME.get(found.status.casefold())
    if status is None:
        return None, None
    project = Project(
        uid=found.uid,
        short_id=found.short_id,
        name=found.name,
        status=status,
        owner=found.owner or "",
        description=found.description,
        contact_name=found.contact_name if found.contact_name is not None else found.contact,
        metadata=found.metadata or None,
    )
    return project, _nanoseconds(found.fetched_at or "")


def _text(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _nanoseconds(text: str) -> int | None:
    """A time without zone is UTC. None for what is no time."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    return int(seconds * 1_000_000) * 1000 if seconds >= 0 else None
