"""Readings of proven copies make way for transfers, though not for ever: on an equipment that always sends something
no file would be read again within its interval (SPEC §4), and no run would be cleaned before its disk is full."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from enum import Enum

PATIENCE = timedelta(hours=6)
"""Copies of an equipment that had no breather in so long are read beside its transfers."""
BREATHER = timedelta(minutes=1)
"""Without a transfer; enough for a portion of a copy."""


class Slot(Enum):
    """An equipment's. `CLOSED`: paused by an operator, or not configured."""

    IDLE = "idle"
    IN_WORK = "in_work"
    CLOSED = "closed"


class MakingWay:
    """Says whether copies of an equipment may be read now. `slot` is how that equipment stands, `monotonic` in
    seconds."""

    def __init__(self, slot: Callable[[str], Slot], monotonic: Callable[[], float]) -> None:
        self._slot = slot
        self._monotonic = monotonic
        self._busy_since: dict[str, float] = {}
        self._idle_since: dict[str, float] = {}

    def busy(self, equipment_id: str, busy: bool) -> None:
        """The slot was taken or closed, or is free again."""
        now = self._monotonic()
        if not busy:
            self._idle_since[equipment_id] = now
            return
        if self._slot(equipment_id) is Slot.CLOSED:
            self._busy_since.pop(equipment_id, None)
            return
        breathed = now - self._idle_since.pop(equipment_id, now) >= BREATHER.total_seconds()
        if breathed or equipment_id not in self._busy_since:
            self._busy_since[equipment_id] = now

    def may_read(self, equipment_id: str) -> bool:
        """The slot is free, or transfers have had it for long enough."""
        slot = self._slot(equipment_id)
        return slot is Slot.IDLE or (slot is Slot.IN_WORK and self._left(equipment_id) <= 0)

    def pause(self, equipment_id: str) -> float | None:
        """Seconds until copies may be read beside transfers; None: `busy` tells when they may."""
        return self._left(equipment_id) if self._slot(equipment_id) is Slot.IN_WORK else None

    def _left(self, equipment_id: str) -> float:
        now = self._monotonic()
        return self._busy_since.get(equipment_id, now) + PATIENCE.total_seconds() - now
