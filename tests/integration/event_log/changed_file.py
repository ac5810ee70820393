"""Somebody with the file and SQL: changes a log's database behind the back of its service."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from msgspec.structs import replace

from libs.event_log.hash_chain import FIRST_PREVIOUS_HASH, event_hash
from libs.event_log.sqlite_schema import EVENT_COLUMNS, event_from_row, read_store_id


def tamper(path: Path, *statements: str) -> None:
    """Drops the guards first, as whoever owns the file can."""
    with closing(sqlite3.connect(path)) as connection:
        triggers = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def chain_anew(path: Path) -> None:
    """Computes every hash of the log anew, so that the chain holds whatever was changed."""
    with closing(sqlite3.connect(path)) as connection:
        store_id = read_store_id(connection)
        cursor = connection.execute(f"SELECT {EVENT_COLUMNS} FROM events ORDER BY position")
        previous = FIRST_PREVIOUS_HASH
        for event in [event_from_row(cursor, row) for row in cursor.fetchall()]:
            previous = event_hash(store_id, previous, replace(event, hash=b""))
            connection.execute("UPDATE events SET hash = ? WHERE position = ?", (previous, event.position))
        connection.commit()


def cut_off(path: Path, after: int) -> None:
    """Removes the tail, and what SQLite remembers of it."""
    tamper(
        path,
        f"DELETE FROM events WHERE position > {after}",
        f"UPDATE sqlite_sequence SET seq = {after} WHERE name = 'events'",
    )
