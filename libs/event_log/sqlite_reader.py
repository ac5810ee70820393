"""Reads of the log in SQLite: separate connections that can't write, and pages instead of open cursors."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import aiosqlite

from libs.event_log.event import RecordedEvent
from libs.event_log.sqlite_batch import RecordedRequest, request_name
from libs.event_log.sqlite_schema import BUSY_TIMEOUT_MS, EVENT_COLUMNS, event_from_row
from libs.event_log.sqlite_stream_reads import SqliteStreamReads, read_failure
from libs.event_log.store import LogClosedError, LogDamagedError, RequestKey, RequestRecord

PAGE_EVENTS = 1_000
_FIRST_PAGE_EVENTS = 100
_PAGE_BYTES = 4 << 20
_CONNECTIONS = 3

# Positions have no gaps and recorded times never fall, so a time is found by halving the range.
_LAST_POSITION_AT = """
WITH RECURSIVE search(low, high) AS (
    SELECT 0, :head
    UNION ALL
    SELECT
        iif(recorded_ns <= :time, position, low),
        iif(recorded_ns <= :time, high, position - 1)
    FROM search JOIN events ON position = (low + high + 1) / 2
    WHERE low < high
)
SELECT low FROM search WHERE low = high
"""


class SqliteReader:
    """A few `query_only` connections shared by all readers of this process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._all: list[aiosqlite.Connection] = []
        self._free: asyncio.LifoQueue[aiosqlite.Connection] = asyncio.LifoQueue()
        self._streams = SqliteStreamReads(path)
        self._closed = False

    async def open(self) -> None:
        await self._streams.open()
        for _ in range(_CONNECTIONS):
            connection = await aiosqlite.connect(self._path, isolation_level=None)
            self._all.append(connection)
            await connection.execute_fetchall("PRAGMA query_only = ON")
            await connection.execute_fetchall(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            self._free.put_nowait(connection)

    async def close(self) -> None:
        self._closed = True
        await self._streams.close()
        while self._all:
            await self._all.pop().close()

    async def pages(
        self,
        after: int,
        upto: int,
        *,
        stream: str | None = None,
        stream_prefix: str | None = None,
        types: Sequence[str] = (),
        limit: int | None = None,
        backwards: bool = False,
    ) -> AsyncIterator[Sequence[RecordedEvent]]:
        """Pages of events with `after` < position <= `upto`, ascending or descending."""
        conditions, fixed = _filters(stream, stream_prefix, types)
        # A prefix or a type may match nearly all of the log, so their pages walk along the positions; one stream is
        # found by its index, where the order of revisions is that of positions.
        source, order = ("events NOT INDEXED", "position") if stream is None else ("events", "revision")
        sql = (
            f"SELECT {EVENT_COLUMNS} FROM {source} WHERE position > ? AND position <= ?{conditions}"
            f" ORDER BY {order} {'DESC' if backwards else 'ASC'} LIMIT ?"
        )
        wanted, remaining = _FIRST_PAGE_EVENTS, limit
        while after < upto and remaining != 0:
            count = wanted if remaining is None else min(wanted, remaining)
            page = await self._events(sql, (after, upto, *fixed, count))
            if page:
                yield page
            if len(page) < count:
                return
            if backwards:
                upto = page[-1].position - 1
            else:
                after = page[-1].position
            remaining = None if remaining is None else remaining - len(page)
            wanted = _next_page_events(page)

    async def stream(self, stream: str, upto: int) -> Sequence[RecordedEvent]:
        """A whole stream up to a position, oldest first."""
        return await self._streams.read(stream, upto)

    async def range(self, first: int, last: int) -> Sequence[RecordedEvent]:
        """Events from one position to another, both inclusive."""
        return await self._events(
            f"SELECT {EVENT_COLUMNS} FROM events WHERE position BETWEEN ? AND ? ORDER BY position", (first, last)
        )

    async def last_position_at(self, recorded_ns: int, head: int) -> int:
        async with self._connection() as connection:
            rows = await connection.execute_fetchall(_LAST_POSITION_AT, {"head": head, "time": recorded_ns})
        for (position,) in rows:
            return int(position)
        raise LogDamagedError(0, "a position below the head is missing")

    async def request(self, request: RequestKey) -> RecordedRequest | None:
        async with self._connection() as connection:
            rows = await connection.execute_fetchall(
                "SELECT body_digest, first_position, last_position FROM requests"
                " WHERE actor = ? AND method = ? AND request_id = ?",
                request_name(request),
            )
        for digest, first, last in rows:
            return RecordedRequest(digest, first, last)
        return None

    async def requests(self, upto: int) -> AsyncIterator[Sequence[RequestRecord]]:
        """Pages of the requests that were answered up to a position, in the order of their names."""
        last = ("", "", "")
        while True:
            async with self._connection() as connection:
                rows = await connection.execute_fetchall(
                    "SELECT actor, method, request_id, body_digest, first_position, last_position FROM requests"
                    " WHERE (actor, method, request_id) > (?, ?, ?) AND last_position <= ?"
                    " ORDER BY actor, method, request_id LIMIT ?",
                    (*last, upto, PAGE_EVENTS),
                )
            page = [RequestRecord(RequestKey(*row[:4]), *row[4:]) for row in rows]
            if page:
                yield page
            if len(page) < PAGE_EVENTS:
                return
            last = request_name(page[-1].request)

    async def _events(self, sql: str, parameters: Iterable[object]) -> Sequence[RecordedEvent]:
        async with self._connection() as connection:
            # aiosqlite types this as a class; sqlite3 takes any callable.
            connection.row_factory = cast(type, event_from_row)
            rows = await connection.execute_fetchall(sql, parameters)
        return cast(Sequence[RecordedEvent], rows)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[aiosqlite.Connection]:
        if self._closed:
            raise LogClosedError("the event log is closed")
        connection = await self._free.get()
        try:
            if self._closed:
                raise LogClosedError("the event log is closed")
            connection.row_factory = None
            yield connection
        except sqlite3.DatabaseError as error:
            raise read_failure(error) from error
        finally:
            self._free.put_nowait(connection)


def _filters(stream: str | None, stream_prefix: str | None, types: Sequence[str]) -> tuple[str, list[object]]:
    conditions, values = "", list[object]()
    if stream is not None:
        conditions += " AND stream = ?"
        values.append(stream)
    if stream_prefix:
        conditions += " AND substr(stream, 1, ?) = ?"
        values += (len(stream_prefix), stream_prefix)
    if types:
        conditions += f" AND type IN ({', '.join('?' * len(types))})"
        values += types
    return conditions, values


def _next_page_events(page: Sequence[RecordedEvent]) -> int:
    """As many events as make a page of a bounded size in memory, judged by the last page."""
    average = sum(len(event.payload) for event in page) // len(page) + 1
    return max(1, min(PAGE_EVENTS, _PAGE_BYTES // average))
