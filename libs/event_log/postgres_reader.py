"""Reads of the log in PostgreSQL: a few pooled connections, and pages instead of open cursors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import asyncpg

from libs.event_log.event import RecordedEvent
from libs.event_log.postgres_connection import CONNECT_SECONDS, PATIENCE_SECONDS, STATEMENT_SECONDS, Pauses
from libs.event_log.postgres_errors import CONNECTION_LOST, store_error
from libs.event_log.postgres_schema import EVENT_COLUMNS
from libs.event_log.store import (
    AppendResult,
    LogClosedError,
    LogDamagedError,
    LogUnavailableError,
    RequestIdReusedError,
    RequestKey,
    RequestRecord,
)

PAGE_EVENTS = 1_000
_FIRST_PAGE_EVENTS = 100
_PAGE_BYTES = 4 << 20
_CONNECTIONS = 3
_LAST_POSITION = (1 << 63) - 1

# Positions have no gaps and recorded times never fall, so a time is found by halving the range.
_LAST_POSITION_AT = """
WITH RECURSIVE search(low, high) AS (
    SELECT 0::bigint, $1::bigint
    UNION ALL
    SELECT
        CASE WHEN e.recorded_ns <= $2 THEN e.position ELSE low END,
        CASE WHEN e.recorded_ns <= $2 THEN high ELSE e.position - 1 END
    FROM search JOIN {schema}.events e ON e.position = (low + high + 1) / 2
    WHERE low < high
)
SELECT low FROM search WHERE low = high
"""


class PostgresReader:
    """Reads of one service's log. A read whose connection breaks is done again, for a while."""

    def __init__(self, url: str, schema: str) -> None:
        self._schema = schema
        self._pool = asyncpg.create_pool(
            url,
            min_size=0,
            max_size=_CONNECTIONS,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS,
            server_settings={"application_name": f"labferry {schema} reads"},
        )
        self._closed = False

    async def open(self) -> None:
        await self._pool

    async def close(self) -> None:
        """Ends what is being read. May be called again."""
        if not self._closed:
            self._closed = True
            self._pool.terminate()

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
        after, upto = max(after, 0), min(upto, _LAST_POSITION)
        conditions, fixed = _filters(stream, stream_prefix, types)
        if any("\0" in text for text in (stream or "", stream_prefix or "", *types)):
            # PostgreSQL knows no such text, so no event has it.
            return
        # One stream is found by its index, where the order of revisions is that of positions.
        order = "position" if stream is None else "revision"
        sql = (
            f"SELECT {EVENT_COLUMNS} FROM {self._schema}.events WHERE position > $1 AND position <= $2{conditions}"
            f" ORDER BY {order} {'DESC' if backwards else 'ASC'} LIMIT $3"
        )
        wanted, remaining = _FIRST_PAGE_EVENTS, limit
        while after < upto and remaining != 0:
            count = wanted if remaining is None else min(wanted, remaining)
            page = await self.events(sql, after, upto, count, *fixed)
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
        if "\0" in stream:
            return []
        return await self.events(
            f"SELECT {EVENT_COLUMNS} FROM {self._schema}.events WHERE stream = $1 AND position <= $2 ORDER BY revision",
            stream,
            min(upto, _LAST_POSITION),
        )

    async def last(self, count: int) -> Sequence[RecordedEvent]:
        """The last events, newest first."""
        sql = f"SELECT {EVENT_COLUMNS} FROM {self._schema}.events ORDER BY position DESC LIMIT $1"
        return await self.events(sql, count)

    async def highest_ever_recorded(self) -> int:
        """The last position that was ever given out, even if its event is gone."""
        rows = await self._fetch(f"SELECT coalesce(max(position), 0) FROM {self._schema}.highest")
        return int(rows[0][0])

    async def last_position_at(self, recorded_ns: int, head: int) -> int:
        time = max(-1, min(recorded_ns, (1 << 63) - 1))
        for (position,) in await self._fetch(_LAST_POSITION_AT.format(schema=self._schema), head, time):
            return int(position)
        raise LogDamagedError(0, "a position below the head is missing")

    async def request(self, request: RequestKey) -> AppendResult | None:
        """What a request appended. RequestIdReusedError for another body."""
        if "\0" in request.request_id:
            return None
        rows = await self._fetch(
            f"SELECT body_digest, first_position, last_position FROM {self._schema}.requests"
            " WHERE actor = $1 AND method = $2 AND request_id = $3",
            request.actor,
            request.method,
            request.request_id,
        )
        for digest, first, last in rows:
            if digest != request.body_digest:
                raise RequestIdReusedError(request.request_id)
            sql = (
                f"SELECT {EVENT_COLUMNS} FROM {self._schema}.events WHERE position BETWEEN $1 AND $2 ORDER BY position"
            )
            return AppendResult(await self.events(sql, first, last), repeated=True)
        return None

    async def requests(self, upto: int) -> AsyncIterator[Sequence[RequestRecord]]:
        """Pages of the requests that were answered up to a position, in the order of their names."""
        last = ("", "", "")
        sql = (
            f"SELECT actor, method, request_id, body_digest, first_position, last_position FROM {self._schema}.requests"
            " WHERE (actor, method, request_id) > ($1, $2, $3) AND last_position <= $4"
            " ORDER BY actor, method, request_id LIMIT $5"
        )
        while True:
            rows = await self._fetch(sql, *last, upto, PAGE_EVENTS)
            page = [RequestRecord(RequestKey(*row[:4]), row[4], row[5]) for row in rows]
            if page:
                yield page
            if len(page) < PAGE_EVENTS:
                return
            last = (page[-1].request.actor, page[-1].request.method, page[-1].request.request_id)

    async def events(self, sql: str, *arguments: object) -> list[RecordedEvent]:
        return [RecordedEvent(*row) for row in await self._fetch(sql, *arguments)]

    async def _fetch(self, sql: str, *arguments: object) -> Sequence[asyncpg.Record]:
        pauses = Pauses()
        give_up = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while True:
            if self._closed:
                raise LogClosedError("the event log is closed")
            try:
                rows: Sequence[asyncpg.Record] = await self._pool.fetch(sql, *arguments)
                return rows
            except CONNECTION_LOST as error:
                pauses.failed()
                if asyncio.get_running_loop().time() + pauses.left() > give_up:
                    raise LogUnavailableError(f"the event log's database doesn't answer: {error}") from error
            except asyncpg.PostgresError as error:
                raise store_error(error) from error
            await asyncio.sleep(pauses.left())


def _filters(stream: str | None, stream_prefix: str | None, types: Sequence[str]) -> tuple[str, list[object]]:
    """Conditions whose values begin at the fourth parameter."""
    conditions, values = "", list[object]()
    for condition, value in (
        ("stream = ${}", stream),
        ("starts_with(stream, ${})", stream_prefix or None),
        ("type = ANY(${}::text[])", list(types) or None),
    ):
        if value is not None:
            values.append(value)
            conditions += " AND " + condition.format(3 + len(values))
    return conditions, values


def _next_page_events(page: Sequence[RecordedEvent]) -> int:
    """As many events as make a page of a bounded size in memory, judged by the last page."""
    average = sum(len(event.payload) for event in page) // len(page) + 1
    return max(1, min(PAGE_EVENTS, _PAGE_BYTES // average))
