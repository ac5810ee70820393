"""PauseEquipment and ResumeEquipment: an operator holds every job of an equipment, or lets them go on."""

from __future__ import annotations

from google.protobuf.message import Message

from labferry.events.v1 import equipment_events_pb2 as events
from libs.event_log.projection import ProjectionRunner
from libs.event_log.store import Expected
from services.sync_engine.engine_log import Cause, Change, EngineLog, decided_anew
from services.sync_engine.equipment.read_model import equipment_record
from services.sync_engine.event_types import equipment_stream
from services.sync_engine.runs.location import RunLocator


class PauseEquipment:
    """The commands. Each is an event of the equipment's own stream, so that it outlives the engine."""

    def __init__(self, log: EngineLog, projections: ProjectionRunner, locator: RunLocator) -> None:
        self._log = log
        self._projections = projections
        self._locator = locator

    async def set(self, equipment_id: str, paused: bool, cause: Cause) -> None:
        """Nothing is recorded when it is so already. EquipmentNotConfiguredError."""
        self._locator.equipment(equipment_id)
        event: Message = events.EquipmentResumed(equipment_id=equipment_id)
        if paused:
            event = events.EquipmentPaused(equipment_id=equipment_id)

        async def attempt() -> None:
            record = await self._projections.query(lambda c: equipment_record(c, equipment_id))
            if (record.pause is not None) == paused:
                return
            expected = record.revision if record.revision >= 0 else Expected.NONE
            await self._log.append(cause, Change(equipment_stream(equipment_id), expected, (event,)))

        await decided_anew(attempt)
