"""Looks at a log's file for damage: quickly at its end when it is opened, then at its structure in the background."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from libs.event_log.hash_chain import FIRST_PREVIOUS_HASH, event_hash
from libs.event_log.sqlite_schema import EVENT_COLUMNS, event_from_row
from libs.event_log.store import LogDamagedError


def highest_ever_recorded(connection: sqlite3.Connection) -> int:
    """The last position that was ever given out, even if its event is gone; 0 for a new log."""
    (highest,) = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone() or (0,)
    return int(highest)


def contradiction_at_head(connection: sqlite3.Connection, store_id: str) -> LogDamagedError | None:
    """Whether the last event follows from the one before it, and was the last one ever. The log must have events."""
    cursor = connection.execute(f"SELECT {EVENT_COLUMNS} FROM events ORDER BY position DESC LIMIT 2")
    last, *before = [event_from_row(cursor, row) for row in cursor.fetchall()]
    highest = highest_ever_recorded(connection)
    if highest > last.position:
        return LogDamagedError(last.position + 1, f"events up to position {highest} were recorded and are gone")
    previous = before[0].hash if before else FIRST_PREVIOUS_HASH
    # A gap before the head shows in the positions; its place is for the whole check to find.
    if last.position != (before[0].position + 1 if before else 1) or event_hash(store_id, previous, last) != last.hash:
        return LogDamagedError(last.position, "the last event doesn't follow from its predecessor")
    return None


class QuickCheck:
    """SQLite's own check of the file's structure; seconds a gigabyte, so it runs beside the service."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._task: asyncio.Task[LogDamagedError | None] | None = None
        self._closing = False
        self.damage: LogDamagedError | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="event-log-quick-check")

    async def finished(self) -> LogDamagedError | None:
        """Waits for the end of the check; what it found."""
        return await asyncio.shield(self._task) if self._task is not None else None

    async def close(self) -> None:
        """Ends the check, finished or not."""
        self._closing = True
        if self._task is None:
            return
        while not self._task.done():
            # The interrupt is lost when it comes between two statements, so it is repeated.
            if self._connection is not None:
                self._connection.interrupt()
            await asyncio.wait({self._task}, timeout=0.01)

    async def _run(self) -> LogDamagedError | None:
        connection = await asyncio.to_thread(sqlite3.connect, self._path, isolation_level=None, check_same_thread=False)
        self._connection = connection
        try:
            self.damage = await asyncio.to_thread(self._check, connection)
        finally:
            self._connection = None
            connection.close()
        return self.damage

    def _check(self, connection: sqlite3.Connection) -> LogDamagedError | None:
        if self._closing:
            return None
        try:
            connection.execute("PRAGMA query_only = ON")
            (first_line,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                # Interrupted or without memory: nothing was learned, and the next start checks again.
                return None
            first_line = str(error)
        return None if first_line == "ok" else LogDamagedError(0, first_line)
