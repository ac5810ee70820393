"""The event store on PostgreSQL: one schema a service, shared by its replicas."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self

from libs.event_log.event import RecordedEvent
from libs.event_log.genesis import genesis
from libs.event_log.hash_chain import FIRST_PREVIOUS_HASH, event_hash
from libs.event_log.postgres_committer import PostgresCommitter
from libs.event_log.postgres_connection import PATIENCE_SECONDS, Connection, LastingConnection
from libs.event_log.postgres_head import HeadListener, PostgresHead
from libs.event_log.postgres_leases import PostgresLeases
from libs.event_log.postgres_migration import ensure_schema
from libs.event_log.postgres_reader import PostgresReader
from libs.event_log.recording import check_appends
from libs.event_log.store import (
    AppendResult,
    LeaseFence,
    LogDamagedError,
    RequestKey,
    RequestRecord,
    RevisionConflictError,
    StreamAppend,
)
from libs.event_log.uuid7 import Uuid7Source

_EVERYTHING = (1 << 63) - 1


class PostgresEventStore:
    """An EventStore in one schema of a PostgreSQL database. Made by `open`, ended by `close`; used on one event loop.

    `head` follows other replicas' appends by notification, within a second at the latest; a read without `upto` asks
    the database and is never behind.
    """

    def __init__(
        self,
        url: str,
        schema: str,
        store_id: str,
        head: PostgresHead,
        clock: Callable[[], int] | None,
    ) -> None:
        self._store_id = store_id
        self._head = head
        self._damage: LogDamagedError | None = None
        ids, id_clock = Uuid7Source(), clock or time.time_ns
        self._committer = PostgresCommitter(
            schema,
            LastingConnection(url, f"{schema} appends", self._prepare_writer),
            lambda: ids.next(id_clock()),
            clock,
            lambda event: head.advance(event.position, event.hash),
        )
        self._reader = PostgresReader(url, schema)
        self._leases = PostgresLeases(schema, LastingConnection(url, f"{schema} leases"))
        self._listener = HeadListener(schema, head, LastingConnection(url, f"{schema} head", head.prove_kept))

    @classmethod
    async def open(cls, url: str, *, service: str, version: str, clock: Callable[[], int] | None = None) -> Self:
        """Opens the log in the schema that has the service's name, and makes it where there is none.

        `clock`: nanoseconds since the epoch; absent, the database's clock, which all replicas share.
        LogLocationError where a log can't be kept, LogUnavailableError when the database doesn't answer,
        LogDamagedError when nothing can be read. A log that is damaged but readable opens and refuses appends.
        """
        store_ids: list[str] = []

        async def prepare(connection: Connection) -> None:
            store_ids.append(await ensure_schema(connection, service))

        opening = LastingConnection(url, f"{service} opening", prepare)
        try:
            connection = await opening.get(PATIENCE_SECONDS)
            head = PostgresHead(service, 0, FIRST_PREVIOUS_HASH)
            await head.look(connection)
        finally:
            await opening.close()
        store = cls(url, service, store_ids[-1], head, clock)
        ready = False
        try:
            await store._reader.open()
            if store.head == 0:
                highest = await store._reader.highest_ever_recorded()
                # Another replica may have begun the log since the head was looked at.
                if highest > 0 and await store._latest() == 0:
                    raise LogDamagedError(1, f"the log held {highest} events, and all of them are gone")
                if store.head == 0:
                    await store._begin(service, version)
            store._damage = await store._contradiction_at_head()
            ready = True
        finally:
            if not ready:
                await store.close()
        return store

    @property
    def store_id(self) -> str:
        return self._store_id

    @property
    def head(self) -> int:
        return self._head.watch.head

    @property
    def oldest(self) -> int:
        return 1

    @property
    def damage(self) -> LogDamagedError | None:
        """What is known to be wrong: at the head when the log was opened, or a database that was set back since."""
        return self._damage or self._head.damage

    @property
    def leases(self) -> PostgresLeases:
        return self._leases

    async def append(
        self, appends: Sequence[StreamAppend], request: RequestKey | None = None, fence: LeaseFence | None = None
    ) -> AppendResult:
        check_appends(appends, request)
        if (damage := self.damage) is not None:
            raise LogDamagedError(damage.position, damage.detail)
        return await self._committer.append(appends, request, fence)

    async def find_request(self, request: RequestKey) -> AppendResult | None:
        return await self._reader.request(request)

    def requests(self, upto: int) -> AsyncIterator[Sequence[RequestRecord]]:
        return self._reader.requests(upto)

    async def read(
        self,
        after: int = 0,
        *,
        upto: int | None = None,
        stream: str | None = None,
        stream_prefix: str | None = None,
        types: Sequence[str] = (),
        limit: int | None = None,
    ) -> AsyncIterator[Sequence[RecordedEvent]]:
        last = await self._latest() if upto is None else upto
        async for page in self._reader.pages(
            after, last, stream=stream, stream_prefix=stream_prefix, types=types, limit=limit
        ):
            yield page

    async def read_backwards(
        self,
        before: int | None = None,
        *,
        stream: str | None = None,
        types: Sequence[str] = (),
        limit: int | None = None,
    ) -> AsyncIterator[Sequence[RecordedEvent]]:
        last = await self._latest() if before is None else before - 1
        async for page in self._reader.pages(0, last, stream=stream, types=types, limit=limit, backwards=True):
            yield page

    async def read_stream(self, stream: str, *, upto_position: int | None = None) -> Sequence[RecordedEvent]:
        return await self._reader.stream(stream, _EVERYTHING if upto_position is None else upto_position)

    async def last_position_at(self, recorded_ns: int) -> int:
        return await self._reader.last_position_at(recorded_ns, await self._latest())

    async def wait_beyond(self, position: int) -> int:
        return await self._head.watch.wait_beyond(position)

    async def close(self) -> None:
        """Commits what was asked before, then lets go of the database. May be called again."""
        await self._committer.close()
        await self._listener.close()
        await self._leases.close()
        await self._reader.close()

    async def _latest(self) -> int:
        """The head as the database has it now."""
        for event in await self._reader.last(1):
            self._head.advance(event.position, event.hash)
        return self.head

    async def _begin(self, service: str, version: str) -> None:
        try:
            await self._committer.append((genesis(self._store_id, service, version),), None, None)
        except RevisionConflictError:
            # Another replica was quicker.
            await self._latest()

    async def _contradiction_at_head(self) -> LogDamagedError | None:
        """Whether the last event follows from the one before it, and was the last one ever."""
        # In this order: other replicas may append meanwhile.
        highest = await self._reader.highest_ever_recorded()
        last, *before = await self._reader.last(2)
        if highest > last.position:
            return LogDamagedError(last.position + 1, f"events up to position {highest} were recorded and are gone")
        previous = before[0].hash if before else FIRST_PREVIOUS_HASH
        follows = last.position == (before[0].position + 1 if before else 1)
        if follows and event_hash(self._store_id, previous, last) == last.hash:
            return None
        return LogDamagedError(last.position, "the last event doesn't follow from its predecessor")

    async def _prepare_writer(self, connection: Connection) -> None:
        if await connection.fetchval("SHOW synchronous_commit") == "off":
            # An acknowledged event must survive a crash of the server, whatever the database's default.
            await connection.execute("SET synchronous_commit = on")
        await self._head.prove_kept(connection)
