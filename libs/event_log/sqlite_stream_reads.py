"""Reads of single streams in SQLite, gathered: those of one moment go to the reading thread together.

A thread is woken, and has to wait for the interpreter's lock, once for all of them instead of once for each.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec

from libs.event_log.event import RecordedEvent
from libs.event_log.sqlite_schema import BUSY_TIMEOUT_MS, EVENT_COLUMNS, event_from_row
from libs.event_log.store import EventStoreError, LogClosedError, LogDamagedError, LogUnavailableError

_STREAM = f"SELECT {EVENT_COLUMNS} FROM events WHERE stream = ? AND position <= ? ORDER BY revision"

Outcome = Sequence[RecordedEvent] | EventStoreError


class _Read(msgspec.Struct, eq=False):
    """One stream up to a position, and who waits for it."""

    stream: str
    upto: int
    answered: asyncio.Future[Sequence[RecordedEvent]]


class SqliteStreamReads:
    """One `query_only` connection on a thread of its own. While it reads, the next reads gather."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="event-log-streams")
        self._connection: sqlite3.Connection | None = None
        self._gathered: list[_Read] = []
        self._reading: asyncio.Future[list[Outcome]] | None = None
        self._closed = False

    async def open(self) -> None:
        self._connection = await asyncio.get_running_loop().run_in_executor(self._thread, _connect, self._path)

    async def read(self, stream: str, upto: int) -> Sequence[RecordedEvent]:
        """A whole stream up to a position, oldest first."""
        if self._closed:
            raise LogClosedError("the event log is closed")
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Sequence[RecordedEvent]] = loop.create_future()
        if not self._gathered and self._reading is None:
            loop.call_soon(self._hand_over)
        self._gathered.append(_Read(stream, upto, answered))
        return await answered

    async def close(self) -> None:
        """Answers the reads in work and refuses the others. May be called again."""
        self._closed = True
        _refuse(self._gathered)
        self._gathered = []
        await asyncio.to_thread(self._thread.shutdown)
        if self._reading is not None:
            await asyncio.wait({self._reading})
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _hand_over(self) -> None:
        if self._reading is not None or not self._gathered:
            return
        reads, self._gathered = self._gathered, []
        self._reading = asyncio.get_running_loop().run_in_executor(self._thread, self._read_all, reads)
        self._reading.add_done_callback(partial(self._answer, reads))

    def _read_all(self, reads: Sequence[_Read]) -> list[Outcome]:
        return [self._read_one(read) for read in reads]

    def _read_one(self, read: _Read) -> Outcome:
        if self._connection is None:
            return LogClosedError("the event log is closed")
        try:
            return self._connection.execute(_STREAM, (read.stream, read.upto)).fetchall()
        except sqlite3.DatabaseError as error:
            return read_failure(error)

    def _answer(self, reads: Sequence[_Read], done: asyncio.Future[list[Outcome]]) -> None:
        self._reading = None
        for read, outcome in zip(reads, done.result(), strict=True):
            if read.answered.done():
                continue
            if isinstance(outcome, EventStoreError):
                read.answered.set_exception(outcome)
            else:
                read.answered.set_result(outcome)
        self._hand_over()


def read_failure(error: sqlite3.DatabaseError) -> EventStoreError:
    """What a reader learns of SQLite's refusal."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return LogDamagedError(0, str(error))
    return LogUnavailableError(f"the event log can't be read: {error}")


def _refuse(reads: Sequence[_Read]) -> None:
    for read in reads:
        if not read.answered.done():
            read.answered.set_exception(LogClosedError("the event log is closed"))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000)
    connection.execute("PRAGMA query_only = ON")
    # A plain function; its stub knows factories of a class only.
    connection.row_factory = event_from_row
    return connection
