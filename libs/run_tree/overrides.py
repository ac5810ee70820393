"""Operators' permissions to ignore one class of finding on one run, and the tombstones that revoke them (SPEC §2).

Append-only. Which of them hold at a moment is decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from libs.run_tree.json_value import JsonValue
from libs.run_tree.timestamp import MalformedTimeError, format_time, parse_time


def _text(raw: Mapping[str, JsonValue], key: str) -> str | None:
    value = raw.get(key)
    return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class OverrideEntry:
    """One entry of `validation_overrides`; `raw` is the JSON object as it stands, every field kept.

    Fields of another type than theirs read as None. `revoked` tells an override (False) from a tombstone (True).
    """

    raw: Mapping[str, JsonValue] = field(hash=False)

    @classmethod
    def permission(
        cls,
        *,
        override_id: str,
        problem_class: str,
        operator: str,
        recorded_at: datetime,
        reason: str,
        expires_at: datetime | None,
    ) -> OverrideEntry:
        """A new override (FORMATS §4). ValueError without operator or reason."""
        _require_operator_and_reason(operator, reason)
        return cls(
            {
                "id": override_id,
                "problem_class": problem_class,
                "operator": operator,
                "recorded_at": format_time(recorded_at),
                "reason": reason,
                "revoked": False,
                "expires_at": None if expires_at is None else format_time(expires_at),
            }
        )

    @classmethod
    def tombstone(
        cls, *, tombstone_id: str, revokes: str, operator: str, recorded_at: datetime, reason: str
    ) -> OverrideEntry:
        """A new tombstone (FORMATS §4). ValueError without operator or reason."""
        _require_operator_and_reason(operator, reason)
        return cls(
            {
                "id": tombstone_id,
                "revokes": revokes,
                "operator": operator,
                "recorded_at": format_time(recorded_at),
                "reason": reason,
                "revoked": True,
            }
        )

    @property
    def id(self) -> str | None:
        """None or "" until one is given to the entry."""
        return _text(self.raw, "id") or None

    @property
    def problem_class(self) -> str | None:
        """Short name of the rule that is permitted; None on a tombstone."""
        return _text(self.raw, "problem_class")

    @property
    def operator(self) -> str | None:
        """Who decided."""
        return _text(self.raw, "operator")

    @property
    def reason(self) -> str | None:
        """Why."""
        return _text(self.raw, "reason")

    @property
    def recorded_at(self) -> datetime | None:
        """When; None when it is missing or malformed."""
        text = _text(self.raw, "recorded_at")
        try:
            return None if text is None else parse_time(text)
        except MalformedTimeError:
            return None

    @property
    def revoked(self) -> bool:
        """True on a tombstone. Absent means False; anything but false counts as True, for then the gate closes."""
        return self.raw.get("revoked", False) is not False

    @property
    def revokes(self) -> str | None:
        """On a tombstone, the id of the override that it revokes. On an override it has no effect."""
        return _text(self.raw, "revokes")

    @property
    def expires_at(self) -> datetime | None:
        """The instant from which the override no longer holds; None when it never ends.

        MalformedTimeError when what stands there is no time with a zone: such an override counts as expired.
        """
        value = self.raw.get("expires_at")
        if value is None:
            return None
        if not isinstance(value, str):
            raise MalformedTimeError(f"{value!r} is no time")
        return parse_time(value, zone_required=True)

    def with_id(self, override_id: str) -> OverrideEntry:
        """The same entry with this id, at the front as FORMATS §4 orders it."""
        return OverrideEntry({"id": override_id, **{key: value for key, value in self.raw.items() if key != "id"}})


def _require_operator_and_reason(operator: str, reason: str) -> None:
    if not operator.strip() or not reason.strip():
        raise ValueError("an operator and a reason are required")


@dataclass(frozen=True, slots=True)
class ActiveOverrides:
    """What holds at one moment. `earliest_expiry` is when the next of them ends, None when none does."""

    ids: frozenset[str]
    classes: frozenset[str]
    earliest_expiry: datetime | None
    warnings: tuple[str, ...]


def active_overrides(entries: Iterable[OverrideEntry], now: datetime) -> ActiveOverrides:
    """The overrides that hold at `now` (aware): not revoked, no tombstone at their id, and not expired.

    Warnings, one sentence each, name what has no effect: a malformed expiry, a tombstone that revokes no override.
    """
    entries = tuple(entries)
    overrides = [entry for entry in entries if not entry.revoked]
    tombstones = [entry for entry in entries if entry.revoked]
    revoked_ids = {entry.revokes for entry in tombstones if entry.revokes}
    warnings = _idle_tombstones(overrides, tombstones)

    ids: set[str] = set()
    classes: set[str] = set()
    expiries: list[datetime] = []
    for entry in overrides:
        if entry.id in revoked_ids:
            continue
        try:
            expires_at = entry.expires_at
        except MalformedTimeError as error:
            warnings.append(f"Override {entry.id} counts as expired: its expires_at is malformed ({error}).")
            continue
        if expires_at is not None:
            if expires_at <= now:
                continue
            expiries.append(expires_at)
        if entry.id is not None:
            ids.add(entry.id)
        if entry.problem_class is not None:
            classes.add(entry.problem_class)
    return ActiveOverrides(frozenset(ids), frozenset(classes), min(expiries, default=None), tuple(warnings))


def _idle_tombstones(overrides: Sequence[OverrideEntry], tombstones: Sequence[OverrideEntry]) -> list[str]:
    override_ids = {entry.id for entry in overrides}
    tombstone_ids = {entry.id for entry in tombstones}
    warnings: list[str] = []
    for tombstone in tombstones:
        if tombstone.revokes is not None and tombstone.revokes in override_ids:
            continue
        if tombstone.revokes is not None and tombstone.revokes in tombstone_ids:
            warnings.append(f"Tombstone {tombstone.id} points at the tombstone {tombstone.revokes} and has no effect.")
        else:
            warnings.append(f"Tombstone {tombstone.id} points at {tombstone.revokes}, which is no known override.")
    return warnings
