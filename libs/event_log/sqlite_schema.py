"""The log's tables in SQLite, and how its connections are opened."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from libs.event_log.event import RecordedEvent
from libs.event_log.store import LogDamagedError, LogDiskFullError, LogLocationError

APPLICATION_ID = 0x4C616266
SCHEMA_VERSION = 1
BUSY_TIMEOUT_MS = 5_000
WAL_LIMIT_BYTES = 32 << 20
"""Above this size the write-ahead log is folded into the file and cut off, waiting for readers if need be."""

EVENT_COLUMNS = (
    "position, stream, revision, type, event_id, recorded_ns, actor, payload, hash,"
    " may_ignore, on_behalf_of, reason, correlation_id, causation_id"
)
"""In the order of RecordedEvent's fields, so that a row is an event's arguments."""

_TABLES = (
    """
    CREATE TABLE log (
        store_id TEXT PRIMARY KEY
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE events (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        stream TEXT NOT NULL,
        revision INTEGER NOT NULL,
        type TEXT NOT NULL,
        event_id TEXT NOT NULL UNIQUE,
        recorded_ns INTEGER NOT NULL,
        actor TEXT NOT NULL,
        on_behalf_of TEXT NOT NULL,
        reason TEXT NOT NULL,
        correlation_id TEXT NOT NULL,
        causation_id TEXT NOT NULL,
        may_ignore INTEGER NOT NULL,
        hash BLOB NOT NULL,
        payload BLOB NOT NULL,
        UNIQUE (stream, revision)
    ) STRICT
    """,
    # An append may record a request and no event; then last_position is one less than first_position.
    """
    CREATE TABLE requests (
        actor TEXT NOT NULL,
        method TEXT NOT NULL,
        request_id TEXT NOT NULL,
        body_digest BLOB NOT NULL,
        first_position INTEGER NOT NULL,
        last_position INTEGER NOT NULL,
        PRIMARY KEY (actor, method, request_id)
    ) STRICT, WITHOUT ROWID
    """,
)

_GUARDS = (
    *(
        f"CREATE TRIGGER {table}_refuse_{verb.lower()} BEFORE {verb} ON {table}"
        f" BEGIN SELECT RAISE(ABORT, 'the event log is append-only'); END"
        for table in ("log", "events", "requests")
        for verb in ("UPDATE", "DELETE")
    ),
    # INSERT OR REPLACE removes the row in its way without asking the triggers above.
    """
    CREATE TRIGGER events_refuse_replace BEFORE INSERT ON events
    WHEN NEW.position <> (SELECT coalesce(max(position), 0) + 1 FROM events)
        OR EXISTS (SELECT 1 FROM events WHERE stream = NEW.stream AND revision = NEW.revision)
        OR EXISTS (SELECT 1 FROM events WHERE event_id = NEW.event_id)
    BEGIN SELECT RAISE(ABORT, 'the event log is append-only'); END
    """,
    """
    CREATE TRIGGER requests_refuse_replace BEFORE INSERT ON requests
    WHEN EXISTS (SELECT 1 FROM requests
        WHERE actor = NEW.actor AND method = NEW.method AND request_id = NEW.request_id)
    BEGIN SELECT RAISE(ABORT, 'the event log is append-only'); END
    """,
)

_EVENT_ARITY = EVENT_COLUMNS.count(",") + 1
_EVENT_VALUES = "(" + ", ".join("?" * _EVENT_ARITY) + ")"


def insert_events_sql(count: int) -> str:
    """One statement for many rows: each statement gives the interpreter's lock away and waits for it again."""
    return f"INSERT INTO events ({EVENT_COLUMNS}) VALUES " + ", ".join([_EVENT_VALUES] * count)


def insert_requests_sql(count: int) -> str:
    return (
        "INSERT INTO requests (actor, method, request_id, body_digest, first_position, last_position) VALUES "
        + ", ".join(["(?, ?, ?, ?, ?, ?)"] * count)
    )


def event_from_row(_cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> RecordedEvent:
    """A row of EVENT_COLUMNS, as a sqlite3 row factory. STRICT tables vouch for the types, but know no booleans."""
    return RecordedEvent(
        row[0],
        row[1],
        row[2],
        row[3],
        row[4],
        row[5],
        row[6],
        row[7],
        row[8],
        row[9] != 0,
        row[10],
        row[11],
        row[12],
        row[13],
    )


def open_writer(path: Path) -> sqlite3.Connection:
    """The one writing connection of a log, made ready; the file is made when it isn't there.

    LogLocationError for a file that is something else, LogDamagedError for one that can't be read as a database.
    """
    connection = sqlite3.connect(
        path,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT_MS / 1000,
        cached_statements=256,
    )
    prepared = False
    try:
        with opening_errors(path):
            _prepare(connection, path)
        prepared = True
    finally:
        if not prepared:
            connection.close()
    return connection


@contextmanager
def opening_errors(path: Path) -> Iterator[None]:
    """What is wrong with a file that SQLite refuses while it is being opened."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise LogDamagedError(0, f"{path} can't be read: {error}") from error
        if code == sqlite3.SQLITE_FULL:
            raise LogDiskFullError(f"the disk of the event log {path} is full") from error
        raise LogLocationError(f"the event log {path} can't be opened: {error}") from error


def read_store_id(connection: sqlite3.Connection) -> str:
    """The id that names this log."""
    row = connection.execute("SELECT store_id FROM log").fetchone()
    if row is None:
        raise LogDamagedError(0, "the log's own id is gone")
    return str(row[0])


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application_id != APPLICATION_ID:
        raise LogLocationError(f"{path} is an SQLite file of another program")
    if tables and version != SCHEMA_VERSION:
        raise LogLocationError(
            f"the event log {path} has schema version {version}; this version of Labferry reads {SCHEMA_VERSION}"
        )
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise LogLocationError(f"the filesystem of {path} doesn't allow SQLite's write-ahead log")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    if not tables:
        _create(connection)


def _create(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        for statement in (*_TABLES, *_GUARDS):
            connection.execute(statement)
        connection.execute("INSERT INTO log (store_id) VALUES (?)", (str(uuid.uuid4()),))
