"""A new log in PostgreSQL that is filled from a backup: one transaction, seen by nobody before its commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import asyncpg
from msgspec.structs import astuple

from libs.event_log.event import RecordedEvent
from libs.event_log.postgres_append_function import ORDERING_LOCK
from libs.event_log.postgres_connection import Connection, connect
from libs.event_log.postgres_errors import opening_error
from libs.event_log.postgres_migration import ensure_schema
from libs.event_log.postgres_schema import EVENT_COLUMNS
from libs.event_log.store import LogLocationError, RequestRecord

_EVENTS = EVENT_COLUMNS.split(", ")
_REQUESTS = ["actor", "method", "request_id", "body_digest", "first_position", "last_position"]

T = TypeVar("T")


class NewPostgresLog:
    """A NewLog in a schema. Its role must own the tables: a service's own may only call functions.

    Runs a loop of its own, so it is used on a thread that has none. The constructor raises LogLocationError.
    """

    def __init__(self, url: str, schema: str) -> None:
        self._schema = schema
        self._runner = asyncio.Runner()
        self._opened: Connection | None = None
        began = False
        try:
            self._opened = self._connection = self._run(connect(url, f"{schema} restore"))
            self._transaction = self._connection.transaction()
            self.store_id = self._run(self._begin())
            began = True
        finally:
            if not began:
                self.discard()

    def add_events(self, events: Sequence[RecordedEvent]) -> None:
        self._copy("events", _EVENTS, [astuple(event) for event in events])

    def add_requests(self, records: Sequence[RequestRecord]) -> None:
        rows: list[tuple[object, ...]] = []
        for record in records:
            key = record.request
            name = (key.actor, key.method, key.request_id)
            rows.append((*name, key.body_digest, record.first_position, record.last_position))
        self._copy("requests", _REQUESTS, rows)

    def place(self) -> None:
        self._run(self._transaction.commit())

    def discard(self) -> None:
        # What wasn't committed is rolled back when the connection ends.
        if self._opened is not None:
            self._opened.terminate()
        self._runner.close()

    async def _begin(self) -> str:
        await self._transaction.start()
        store_id = await ensure_schema(self._connection, self._schema)
        lock = ORDERING_LOCK.replace("@schema@", self._schema).replace("PERFORM", "SELECT", 1)
        await self._connection.execute(lock)
        if await self._connection.fetchval(f"SELECT EXISTS (SELECT FROM {self._schema}.events)"):
            raise LogLocationError(f"the schema {self._schema} is a log already; a restore never replaces one")
        return store_id

    def _copy(self, table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
        self._run(
            self._connection.copy_records_to_table(
                table, records=rows, columns=columns, schema_name=self._schema, timeout=None
            )
        )

    def _run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        try:
            return self._runner.run(awaited())
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise opening_error(error) from error
