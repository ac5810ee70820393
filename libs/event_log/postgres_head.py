"""The head of a log that other replicas write to as well: notifications are hints, with a look every second behind."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import Any

import asyncpg

from libs.event_log.head_watch import HeadWatch
from libs.event_log.postgres_connection import Connection, LastingConnection
from libs.event_log.postgres_errors import CONNECTION_LOST
from libs.event_log.postgres_schema import notification_channel
from libs.event_log.store import EventStoreError, LogClosedError, LogDamagedError

_LOOK_SECONDS = 1.0


class PostgresHead:
    """The last event that is known here, by position and hash, and those who wait for a later one.

    A database that was set back, to a copy that lacks the log's last events, shows when a connection is made anew:
    then `damage` says so, and nothing moves any more.
    """

    def __init__(self, schema: str, position: int, hash_: bytes) -> None:
        self._schema = schema
        self._hash = hash_
        self.watch = HeadWatch(position)
        self.damage: LogDamagedError | None = None

    def advance(self, position: int, hash_: bytes) -> None:
        """An event is known to be committed."""
        if position > self.watch.head:
            self._hash = hash_
            self.watch.advance(position)

    async def prove_kept(self, connection: Connection) -> None:
        """LogDamagedError when the database behind a new connection lacks the known head."""
        position, known = self.watch.head, self._hash
        if position == 0:
            return
        found = await connection.fetchval(f"SELECT hash FROM {self._schema}.events WHERE position = $1", position)
        if found != known:
            self.damage = LogDamagedError(
                position, "the database has lost this event, or has another in its place: it was set back"
            )
            raise LogDamagedError(self.damage.position, self.damage.detail)

    async def look(self, connection: Connection) -> None:
        """Asks the database for its head."""
        row = await connection.fetchrow(
            f"SELECT position, hash FROM {self._schema}.events ORDER BY position DESC LIMIT 1"
        )
        if row is not None:
            self.advance(row[0], row[1])


class HeadListener:
    """Keeps a PostgresHead up to date until it is closed."""

    def __init__(self, schema: str, head: PostgresHead, connection: LastingConnection) -> None:
        self._channel = notification_channel(schema)
        self._head = head
        self._connection = connection
        self._hint = asyncio.Event()
        self._listening = asyncio.create_task(self._listen(), name="event-log-head")

    async def close(self) -> None:
        self._listening.cancel()
        await asyncio.wait({self._listening})
        await self._connection.close()
        self._head.watch.end(lambda: LogClosedError("the event log is closed"))

    async def _listen(self) -> None:
        while self._head.damage is None:
            try:
                connection = await self._connection.get(math.inf)
                connection.add_termination_listener(self._broken)
                await connection.add_listener(self._channel, self._heard)
                while True:
                    self._hint.clear()
                    await self._head.look(connection)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_SECONDS):
                            await self._hint.wait()
            except CONNECTION_LOST:
                self._connection.drop()
            except asyncpg.PostgresError:
                self._connection.drop()
            except LogClosedError:
                return
            except EventStoreError:
                # The connection itself waits longer from one attempt to the next; damage ends the loop.
                continue

    def _broken(self, _connection: Any) -> None:
        self._hint.set()

    def _heard(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        # Whoever may connect can send anything here; a look tells.
        if payload != str(self._head.watch.head):
            self._hint.set()
