"""Read models on disk: a database of their own that can be thrown away and made again from the log.

Everything here runs on a worker thread, one call at a time for each `ReadModelWriter`.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from libs.event_log.event import EventTypes, RecordedEvent
from libs.event_log.left_sound import leave_sound, note_path, was_left_sound
from libs.service_kit.version import LABFERRY_VERSION

T = TypeVar("T")
AppliedEvent = tuple[RecordedEvent, Message | None]

_STATE_TABLE = "read_model_state"
_CREATE_STATE = f"""
CREATE TABLE {_STATE_TABLE} (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    store_id TEXT NOT NULL,
    shape TEXT NOT NULL,
    position INTEGER NOT NULL
) STRICT
"""
_BUSY_TIMEOUT_S = 5.0
_LOG_ITSELF = "event types"


class Projection(Protocol):
    """Rows made from events. All of its state is in its tables: the same object also fills a rebuild's shadow file."""

    @property
    def name(self) -> str: ...

    @property
    def tables(self) -> Sequence[str]:
        """Its read model; compared on rebuild, whole rows in primary key order."""

    def create(self, connection: sqlite3.Connection) -> None:
        """Makes the empty tables. A changed schema, or another release, has every read model replayed at the start."""

    def apply(self, connection: sqlite3.Connection, event: RecordedEvent, payload: Message | None) -> None:
        """Takes one event into the rows, in the order of the log, within the caller's transaction.

        `payload` is None for an unknown type that may be ignored. Depends on nothing but the rows and the event.
        """


@dataclass(frozen=True, slots=True)
class ApplyPoint:
    """Where a writer is in the log: what an error that it raises is about."""

    projection: str
    event: RecordedEvent


class ReadModelWriter:
    """The one writing connection on a file of read models."""

    def __init__(self, path: Path, event_types: EventTypes, projections: Sequence[Projection]) -> None:
        self.path = path
        self._event_types = event_types
        self._projections = projections
        self._connection: sqlite3.Connection | None = None
        self.at: ApplyPoint | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError(f"{self.path} isn't open")
        return self._connection

    def open(self, store_id: str, head: int) -> int:
        """Opens the file; position of the last event that is in it.

        A file that is missing, damaged, of another log, of other projections or ahead of the log is made anew.
        """
        shape = self._shape()
        position = self._open_existing(store_id, shape, head) if self.path.exists() else None
        if position is None:
            self.drop()
            self._create(store_id, shape)
            return 0
        return position

    def apply(self, events: Sequence[RecordedEvent]) -> Sequence[AppliedEvent]:
        """Takes events into the rows and moves the checkpoint, in one transaction.

        Whatever goes wrong is raised with the transaction undone; `at` says where.
        """
        applied: list[AppliedEvent] = []
        connection = self.connection
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for event in events:
                self.at = ApplyPoint(_LOG_ITSELF, event)
                payload = self._event_types.decode(event)
                for projection in self._projections:
                    self.at = ApplyPoint(projection.name, event)
                    projection.apply(connection, event, payload)
                applied.append((event, payload))
            connection.execute(f"UPDATE {_STATE_TABLE} SET position = ?", (events[-1].position,))
        self.at = None
        return applied

    def close(self) -> None:
        """The last one of all who read the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            leave_sound(self.path)

    def drop(self) -> None:
        """Closes and removes the file."""
        self.close()
        remove_database(self.path)

    def _shape(self) -> str:
        with sqlite3.connect(":memory:", isolation_level=None) as trial:
            for projection in self._projections:
                projection.create(trial)
            statements = [sql or "" for (sql,) in trial.execute("SELECT sql FROM sqlite_schema ORDER BY name")]
        trial.close()
        names = [projection.name for projection in self._projections]
        # What a release makes of an event is its own affair: another one begins its read models anew.
        return hashlib.sha256("\0".join([LABFERRY_VERSION, *names, "", *statements]).encode()).hexdigest()

    def _open_existing(self, store_id: str, shape: str, head: int) -> int | None:
        connection = _connect(self.path)
        position: int | None = None
        try:
            sound = was_left_sound(self.path) or _is_sound(connection)
            state = connection.execute(f"SELECT store_id, shape, position FROM {_STATE_TABLE}").fetchone()
            if sound and state is not None and state[:2] == (store_id, shape) and state[2] <= head:
                position = int(state[2])
        except sqlite3.DatabaseError:
            # Unreadable or without its state: all of it is in the log, so it is made anew.
            position = None
        finally:
            if position is None:
                connection.close()
        if position is not None:
            _prepare(connection)
            self._connection = connection
        return position

    def _create(self, store_id: str, shape: str) -> None:
        connection = _connect(self.path)
        self._connection = connection
        _prepare(connection)
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for projection in self._projections:
                projection.create(connection)
            # Last, so that a file without it is known to be unfinished.
            connection.execute(_CREATE_STATE)
            connection.execute(f"INSERT INTO {_STATE_TABLE} VALUES (1, ?, ?, 0)", (store_id, shape))


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that can't write."""
    connection = _connect(path)
    connection.execute("PRAGMA query_only = ON")
    return connection


def read_at_once(connection: sqlite3.Connection, read: Callable[[sqlite3.Connection], T]) -> T:
    """Runs `read` on one unchanging state of the rows."""
    with connection:
        connection.execute("BEGIN")
        return read(connection)


def remove_database(path: Path) -> None:
    """Removes a closed database file with all that SQLite keeps beside it."""
    note_path(path).unlink(missing_ok=True)
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def put_in_place(source: Path, target: Path) -> None:
    """Moves a closed database file over another closed one."""
    # What is left beside the old file would be read as part of the new one.
    remove_database(target)
    os.replace(source, target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _is_sound(connection: sqlite3.Connection) -> bool:
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    return bool(found == "ok")


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    # A power cut may cost the last transactions; the log still has them.
    connection.execute("PRAGMA synchronous = NORMAL")
