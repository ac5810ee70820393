"""Page tokens: the last project that a page showed, so that a token stays right when projects come and go. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from libs.service_kit.errors import FieldViolation, InvalidRequestError
from services.lims_gateway.projects.project import Project, ProjectStatus


@dataclass(frozen=True, slots=True)
class ProjectFilter:
    """`statuses`: any of these, or all when empty. `query`: part of a name or short id, any case; or empty."""

    statuses: frozenset[ProjectStatus] = frozenset()
    query: str = ""

    def digest(self) -> str:
        """Tells one filter from another within page tokens."""
        text = "\0".join((*sorted(self.statuses), self.query.casefold()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def takes(self, project: Project) -> bool:
        if self.statuses and project.status not in self.statuses:
            return False
        return self.query.casefold() in search_text(project)


@dataclass(frozen=True, slots=True)
class PageKey:
    """A place in the order of projects: by name, then uid."""

    name: str
    uid: str


def search_text(project: Project) -> str:
    """What a query is looked for in."""
    return f"{project.name}\n{project.short_id}".casefold()


@dataclass(frozen=True, slots=True)
class Page:
    """`next_key` is None on the last page."""

    projects: Sequence[Project]
    next_key: PageKey | None = None


def cut_page(found: Sequence[Project], limit: int) -> Page:
    """The first `limit` of what was found in order; whether anything lies beyond shows in one more."""
    shown = found[:limit]
    last = shown[-1] if len(found) > limit else None
    return Page(shown, PageKey(last.name, last.uid) if last is not None else None)


def page_of(projects: Iterable[Project], wanted: ProjectFilter, after: PageKey | None, limit: int) -> Page:
    """A page of projects that are in memory, in the order that the cache has too: by name (code points) and uid."""
    place = None if after is None else (after.name, after.uid)
    found = sorted(
        (p for p in projects if wanted.takes(p) and (place is None or (p.name, p.uid) > place)),
        key=lambda p: (p.name, p.uid),
    )
    return cut_page(found, limit)


class _Token(msgspec.Struct, array_like=True):
    name: str
    uid: str
    filter_digest: str


def encode_token(key: PageKey, wanted: ProjectFilter) -> str:
    token = msgspec.json.encode(_Token(key.name, key.uid, wanted.digest()))
    return base64.urlsafe_b64encode(token).decode("ascii")


def decode_token(text: str, wanted: ProjectFilter) -> PageKey:
    """InvalidRequestError for what is no token of ours, or one that belongs to another filter."""
    try:
        token = msgspec.json.decode(base64.b64decode(text, altchars=b"-_", validate=True), type=_Token)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise _wrong("is not a page token of this service") from error
    if token.filter_digest != wanted.digest():
        raise _wrong("belongs to a list with other statuses or another query")
    return PageKey(token.name, token.uid)


def _wrong(description: str) -> InvalidRequestError:
    return InvalidRequestError(FieldViolation("page_token", description))
