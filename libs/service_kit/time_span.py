"""Spans of time for people."""

from __future__ import annotations

from datetime import timedelta

_UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))


def shown_span(span: timedelta) -> str:
    """In the largest unit of which there are at least two: "3 days", "47 hours", "90 seconds"."""
    seconds = span.total_seconds()
    for size, name in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
