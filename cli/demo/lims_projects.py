"""The projects of the demo's LIMS: made up, the same at every start."""

from __future__ import annotations

from typing import Any

_TOPICS = ("Cortex Q3 Pilot", "Retina Atlas", "Zebrafish Growth", "Plasmid Screen", "Organoid Drift", "Müller Glia Map")
_STATUSES = ("Active", "Active", "Pending", "Completed", "Archived")
_PEOPLE = ("Ada Okafor", "Jonas Weber", "Mina Sato", None)
_FIRST_CREATED = 1_700_000_000

Row = dict[str, Any]
"""A project as the REST contract sends it (SPEC §6)."""


def make_rows(count: int) -> list[Row]:
    """`count` rows; the first is PROJ-0042, "Cortex Q3 Pilot"."""
    return [_row(index) for index in range(count)]


def _row(index: int) -> Row:
    number = 42 + index
    topic = _TOPICS[index % len(_TOPICS)]
    series = index // len(_TOPICS)
    person = _PEOPLE[index % len(_PEOPLE)]
    created = _FIRST_CREATED + 3600 * index
    return {
        "id": number,
        "uid": f"0b7c1d2e-0000-4000-8000-{number:012d}",
        "short_id": f"PROJ-{number:04d}",
        "name": f"{topic} {series + 1}" if series else topic,
        "description": f"Demo project {number}" if index % 3 else None,
        "status": _STATUSES[index % len(_STATUSES)],
        "contact_name": person,
        "owner": "demo",
        "metadata": {"grant": f"G-{number}", "samples": index} if index % 2 else None,
        "created_at": created,
        "updated_at": created + 0.5,
        "colour": "a field that Labferry does not know",
    }
