"""Page tokens: the last project that a page showed, so that a token stays right when projects come and go. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

import msgspec

from libs.service_kit.errors import FieldViolation, InvalidRequestError
from services.lims_gateway.projects.project import ProjectStatus


@dataclass(frozen=True, slots=True)
class ProjectFilter:
    """`statuses`: any of these, or all when empty. `query`: part of a name or short id, any case; or empty."""

    statuses: frozenset[ProjectStatus] = frozenset()
    query: str = ""

    def digest(self) -> str:
        """Tells one filter from another within page tokens."""
        text = "\0".join((*sorted(self.statuses), self.query.casefold()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class PageKey:
    """A place in the order of projects: by name, then uid."""

    name: str
    uid: str


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
