"""Times as run-tree files write them (FORMATS §1)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

# Calendar dates only, with the separators: datetime.fromisoformat alone would take week dates and "20260417" too.
_SHAPE = re.compile(
    r"\d{4}-\d\d-\d\d(?P<time>[T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(?P<zone>Z|[+-]\d\d:?\d\d(:?\d\d)?)?)?", re.ASCII
)


class MalformedTimeError(ValueError):
    """A text that is no time, or one without a zone where a zone is required."""


def format_time(moment: datetime) -> str:
    """`2026-04-17T14:32:05Z`: UTC, whole seconds. `moment` must be aware."""
    if moment.tzinfo is None:
        raise MalformedTimeError("a time needs a zone to be written")
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def parse_time(text: str, *, zone_required: bool = False) -> datetime:
    """The moment, in UTC. Fractions, `+hh:mm`, a date alone, and no zone (read as UTC) are accepted.

    MalformedTimeError for anything else, and for a missing zone where it is required.
    """
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        raise MalformedTimeError(f"{text!r} is no time like 2026-04-17T14:32:05Z")
    if zone_required and shape["zone"] is None:
        raise MalformedTimeError(f"{text!r} names no time zone")
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise MalformedTimeError(f"{text!r} is no time: {error}") from error
