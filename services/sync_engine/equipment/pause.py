"""Whether an operator holds an equipment, as the event log knows it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from google.protobuf.message import Message

from labferry.events.v1 import equipment_events_pb2 as events


@dataclass(frozen=True, slots=True)
class Pause:
    """Who holds an equipment, why, and since when."""

    actor: str
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True)
class EquipmentRecord:
    """`revision` -1: the log says nothing about it."""

    equipment_id: str
    pause: Pause | None = None
    revision: int = -1


def evolve(record: EquipmentRecord, event: Message, actor: str, reason: str, at: datetime) -> EquipmentRecord:
    """The equipment after one more event of its stream."""
    match event:
        case events.EquipmentPaused():
            pause: Pause | None = Pause(actor, reason, at)
        case events.EquipmentResumed():
            pause = None
        case _:
            pause = record.pause
    return EquipmentRecord(record.equipment_id, pause, record.revision + 1)
