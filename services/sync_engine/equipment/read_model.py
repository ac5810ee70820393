"""Equipment as rows: which are paused, and how many jobs each has in each state."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from google.protobuf.message import Message

from libs.event_log.event import RecordedEvent
from services.sync_engine.engine_log import recorded_at
from services.sync_engine.equipment.pause import EquipmentRecord, Pause, evolve
from services.sync_engine.jobs.job import JobState


class EquipmentProjection:
    """One row an equipment that the log says anything about."""

    name = "equipment"
    tables: Sequence[str] = ("equipment",)

    def create(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "CREATE TABLE equipment (equipment_id TEXT PRIMARY KEY, paused_by TEXT, pause_reason TEXT,"
            " paused_since REAL, revision INTEGER NOT NULL) WITHOUT ROWID"
        )

    def apply(self, connection: sqlite3.Connection, event: RecordedEvent, payload: Message | None) -> None:
        if payload is None or not event.stream.startswith("equipment-"):
            return
        before = equipment_record(connection, event.stream.removeprefix("equipment-"))
        after = evolve(before, payload, event.actor, event.reason, recorded_at(event))
        pause = after.pause
        connection.execute(
            "INSERT OR REPLACE INTO equipment VALUES (?, ?, ?, ?, ?)",
            (
                after.equipment_id,
                *((None, None, None) if pause is None else (pause.actor, pause.reason, pause.since.timestamp())),
                after.revision,
            ),
        )


def equipment_record(connection: sqlite3.Connection, equipment_id: str) -> EquipmentRecord:
    """What the log knows of an equipment; an empty record when it knows nothing."""
    row = connection.execute(
        "SELECT paused_by, pause_reason, paused_since, revision FROM equipment WHERE equipment_id = ?", (equipment_id,)
    ).fetchone()
    if row is None:
        return EquipmentRecord(equipment_id)
    paused_by, reason, since, revision = row
    pause = None if paused_by is None else Pause(paused_by, reason, datetime.fromtimestamp(since, UTC))
    return EquipmentRecord(equipment_id, pause, revision)


def paused_equipment(connection: sqlite3.Connection) -> dict[str, Pause]:
    """The equipment that operators hold."""
    rows = connection.execute("SELECT equipment_id FROM equipment WHERE paused_by IS NOT NULL").fetchall()
    records = (equipment_record(connection, row[0]) for row in rows)
    return {r.equipment_id: r.pause for r in records if r.pause is not None}


def job_counts(connection: sqlite3.Connection) -> Mapping[str, Mapping[JobState, int]]:
    """By equipment: how many jobs are in each state that any is in."""
    counts: dict[str, dict[JobState, int]] = {}
    rows = connection.execute("SELECT equipment_id, state, count(*) FROM jobs GROUP BY equipment_id, state")
    for equipment_id, state, count in rows.fetchall():
        counts.setdefault(equipment_id, {})[JobState(state)] = count
    return counts
