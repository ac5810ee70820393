"""A new log in SQLite that is filled from a backup: a file of its own, put in place when it is whole."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import astuple

from libs.event_log.event import RecordedEvent
from libs.event_log.log_lock import LogLock, refuse_network_filesystem
from libs.event_log.sqlite_schema import (
    insert_events_sql,
    insert_requests_sql,
    open_writer,
    opening_errors,
    read_store_id,
)
from libs.event_log.store import LogLocationError, RequestRecord


class NewSqliteLog:
    """A NewLog for the place `path`. The constructor raises LogLocationError, LogInUseError."""

    def __init__(self, path: Path, work_folder: Path) -> None:
        self._path = path
        self._file = work_folder / path.name
        refuse_network_filesystem(path.parent)
        # Held to the end, so that the service can't begin a log of its own meanwhile.
        self._lock = LogLock(path)
        self._connection: sqlite3.Connection | None = None
        began = False
        try:
            if path.exists():
                raise LogLocationError(f"{path} is a log already; a restore never replaces one")
            self._connection = open_writer(self._file)
            with opening_errors(self._file):
                self.store_id = read_store_id(self._connection)
            began = True
        finally:
            if not began:
                self.discard()

    def add_events(self, events: Sequence[RecordedEvent]) -> None:
        self._insert(insert_events_sql(1), [astuple(event) for event in events])

    def add_requests(self, records: Sequence[RequestRecord]) -> None:
        rows: list[tuple[object, ...]] = []
        for record in records:
            key = record.request
            name = (key.actor, key.method, key.request_id)
            rows.append((*name, key.body_digest, record.first_position, record.last_position))
        self._insert(insert_requests_sql(1), rows)

    def place(self) -> None:
        self._close()
        try:
            # A link never replaces what is there.
            os.link(self._file, self._path)
        except FileExistsError:
            raise LogLocationError(f"{self._path} is a log by now; a restore never replaces one") from None
        _sync(self._path)
        _sync(self._path.parent)

    def discard(self) -> None:
        self._close()
        self._lock.release()

    def _insert(self, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        if self._connection is None:
            raise LogLocationError(f"{self._path} is complete")
        with opening_errors(self._file), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(sql, rows)

    def _close(self) -> None:
        if self._connection is not None:
            # The last connection folds the write-ahead log into the file.
            self._connection.close()
            self._connection = None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
