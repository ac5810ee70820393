"""The pauses of equipment as they are now, for whoever must know at once: the scheduler and the answers about jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from libs.event_log.projection import AppliedEvent
from services.sync_engine.engine_log import recorded_at
from services.sync_engine.equipment.pause import EquipmentRecord, Pause, evolve
from services.sync_engine.jobs.job import Wait, WaitCondition


class EquipmentPauses:
    """Follows the log. `listener` hears (equipment, paused) after each change."""

    def __init__(self, pauses: Mapping[str, Pause], listener: Callable[[str, bool], None]) -> None:
        self._pauses = dict(pauses)
        self._listener = listener

    def applied(self, batch: Sequence[AppliedEvent]) -> None:
        """The callback of the projections."""
        for event, payload in batch:
            if payload is None or not event.stream.startswith("equipment-"):
                continue
            equipment_id = event.stream.removeprefix("equipment-")
            record = EquipmentRecord(equipment_id, self._pauses.get(equipment_id))
            pause = evolve(record, payload, event.actor, event.reason, recorded_at(event)).pause
            if pause is None:
                self._pauses.pop(equipment_id, None)
            else:
                self._pauses[equipment_id] = pause
            self._listener(equipment_id, pause is not None)

    def wait_of(self, equipment_id: str) -> Wait | None:
        """What jobs of a paused equipment wait for."""
        pause = self._pauses.get(equipment_id)
        if pause is None:
            return None
        detail = f"{pause.actor} paused {equipment_id}: {pause.reason}"
        return Wait(WaitCondition.EQUIPMENT_PAUSED, pause.since, detail)
