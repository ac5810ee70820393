"""Runs as rows: what the log knows of each, for lists and for the work that follows on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec
from google.protobuf.message import Message

from libs.event_log.event import RecordedEvent
from libs.run_tree.creation_record import SyncStatus
from libs.run_tree.json_value import decode_json, encode_json
from libs.run_tree.overrides import OverrideEntry
from services.sync_engine.runs.run import AcceptedChange, LoggedOverride, OpenCleanup, RunRecord, evolve

_OPEN = msgspec.json.Decoder(OpenCleanup)


class RunsProjection:
    """One row a run that the log says anything about."""

    name = "runs"
    tables: Sequence[str] = ("runs", "overrides", "accepted_changes")

    def create(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "CREATE TABLE runs (run TEXT PRIMARY KEY, sync_status TEXT, revision INTEGER NOT NULL,"
            " override_count INTEGER NOT NULL, last_position INTEGER NOT NULL, open_cleanup BLOB) WITHOUT ROWID"
        )
        connection.execute("CREATE INDEX runs_in_cleanup ON runs (run) WHERE open_cleanup IS NOT NULL")
        connection.execute(
            "CREATE TABLE overrides (run TEXT NOT NULL, place INTEGER NOT NULL, entry BLOB NOT NULL,"
            " imported INTEGER NOT NULL, PRIMARY KEY (run, place)) WITHOUT ROWID"
        )
        connection.execute(
            "CREATE TABLE accepted_changes (run TEXT NOT NULL, place INTEGER NOT NULL, destination TEXT NOT NULL,"
            " path BLOB NOT NULL, old_sha256 TEXT NOT NULL, new_sha256 TEXT NOT NULL, PRIMARY KEY (run, place))"
            " WITHOUT ROWID"
        )

    def apply(self, connection: sqlite3.Connection, event: RecordedEvent, payload: Message | None) -> None:
        if payload is None or not event.stream.startswith("run-"):
            return
        before = run_record(connection, event.stream.removeprefix("run-"))
        after = evolve(before, payload)
        connection.execute(
            "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?)",
            (after.run, after.sync_status, after.revision, len(after.overrides), event.position, _open(after)),
        )
        if after.overrides != before.overrides:
            connection.execute("DELETE FROM overrides WHERE run = ?", (after.run,))
            connection.executemany(
                "INSERT INTO overrides VALUES (?, ?, ?, ?)",
                [
                    (after.run, place, encode_json(dict(logged.entry.raw)), int(logged.imported))
                    for place, logged in enumerate(after.overrides)
                ],
            )
        for place in range(len(before.accepted), len(after.accepted)):
            change = after.accepted[place]
            connection.execute(
                "INSERT INTO accepted_changes VALUES (?, ?, ?, ?, ?, ?)",
                (after.run, place, change.destination, change.path, change.old_sha256, change.new_sha256),
            )


def _open(record: RunRecord) -> bytes | None:
    return None if record.open_cleanup is None else msgspec.json.encode(record.open_cleanup)


def run_record(connection: sqlite3.Connection, run: str) -> RunRecord:
    """What the log knows about a run; an empty record when it knows nothing."""
    row = connection.execute("SELECT sync_status, revision, open_cleanup FROM runs WHERE run = ?", (run,)).fetchone()
    if row is None:
        return RunRecord(run)
    entries = connection.execute("SELECT entry, imported FROM overrides WHERE run = ? ORDER BY place", (run,))
    changes = connection.execute(
        "SELECT destination, path, old_sha256, new_sha256 FROM accepted_changes WHERE run = ? ORDER BY place", (run,)
    )
    return RunRecord(
        run=run,
        sync_status=SyncStatus(row[0]) if row[0] else None,
        overrides=tuple(_logged(entry, imported) for entry, imported in entries.fetchall()),
        accepted=tuple(AcceptedChange(*change) for change in changes.fetchall()),
        open_cleanup=None if row[2] is None else _OPEN.decode(row[2]),
        revision=row[1],
    )


def _logged(entry: bytes, imported: int) -> LoggedOverride:
    raw = decode_json(entry)
    if not isinstance(raw, dict):
        raise ValueError("a stored override is no JSON object")
    return LoggedOverride(OverrideEntry(raw), bool(imported))


def runs_known(connection: sqlite3.Connection) -> list[str]:
    """Every run that the log says anything about, the one that changed last first."""
    return [row[0] for row in connection.execute("SELECT run FROM runs ORDER BY last_position DESC").fetchall()]


def runs_in_cleanup(connection: sqlite3.Connection) -> list[str]:
    """Runs whose deletion was begun and not ended."""
    return [row[0] for row in connection.execute("SELECT run FROM runs WHERE open_cleanup IS NOT NULL ORDER BY run")]
