"""The LIMS project that a `creation.json` names (FORMATS §3). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from libs.run_tree.json_value import JsonValue


@dataclass(frozen=True, slots=True)
class NamedLimsProject:
    """As the file names it; each may be "" where it says nothing."""

    uid: str
    short_id: str
    name: str

    @classmethod
    def from_document(cls, value: JsonValue) -> Self | None:
        """None for what names no project."""
        if not isinstance(value, dict):
            return None
        uid, short_id, name = (value.get(key) for key in ("uid", "short_id", "name_at_creation"))
        return cls(*(text if isinstance(text, str) else "" for text in (uid, short_id, name)))
