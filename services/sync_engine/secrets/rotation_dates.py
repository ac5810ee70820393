"""By when the lab's secrets are to be replaced, as the secrets service tells, and which are overdue. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from services.sync_engine.validation.finding import Finding, OffendingKind, Rule

_NAS_PREFIX = "nas:"


class RotationDates:
    """By username. What was told last stays until the secrets service tells anew."""

    def __init__(self) -> None:
        self._dates: Mapping[str, datetime] = {}

    def become(self, dates: Mapping[str, datetime]) -> None:
        self._dates = dates

    def overdue(self, now: datetime, equipment_id: str | None = None) -> list[Finding]:
        """Those of one equipment; None: all of them, the LIMS's too."""
        if equipment_id is None:
            return list(_overdue(self._dates, now))
        username = _NAS_PREFIX + equipment_id
        date = self._dates.get(username)
        return [] if date is None else list(_overdue({username: date}, now))


def _overdue(dates: Mapping[str, datetime], now: datetime) -> Iterable[Finding]:
    for username, date in dates.items():
        if date <= now:
            yield Finding(
                rule=Rule.SECRET_ROTATION_OVERDUE,
                tier=Rule.SECRET_ROTATION_OVERDUE.tier,
                run_path="",
                offending_path=username.removeprefix(_NAS_PREFIX) if username.startswith(_NAS_PREFIX) else "",
                offending_kind=OffendingKind.DIRECTORY_SEGMENT,
                matched_token=username,
                rule_detail=f"The secret {username} was to be replaced by {date:%Y-%m-%dT%H:%M:%SZ}.",
            )
