"""One connection to PostgreSQL that is made again whenever it broke, with growing pauses between attempts in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import asyncpg

from libs.event_log.postgres_errors import CONNECTION_LOST, opening_error
from libs.event_log.store import LogClosedError, LogUnavailableError

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 30.0
PATIENCE_SECONDS = 15.0
"""How long a caller waits for a database that restarts before it is refused."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0

# In quotes: only the type checker knows that it is generic.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def connect(url: str, purpose: str) -> Connection:
    """A connection of its own. OSError, asyncpg's errors."""
    connection: Connection = await asyncpg.connect(
        url,
        timeout=CONNECT_SECONDS,
        command_timeout=STATEMENT_SECONDS,
        server_settings={"application_name": f"labferry {purpose}"},
    )
    return connection


class Pauses:
    """How long to wait before the next attempt: longer from one to the next, from the start again after a success."""

    def __init__(self) -> None:
        self._pause = 0.0
        self._not_before = 0.0

    def left(self) -> float:
        """Seconds until the next attempt may be made."""
        return max(0.0, self._not_before - asyncio.get_running_loop().time())

    def failed(self) -> None:
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._not_before = asyncio.get_running_loop().time() + self._pause

    def succeeded(self) -> None:
        self._pause = self._not_before = 0.0


class LastingConnection:
    """Made when it is first asked for. `prepare` runs on every new connection before anybody else uses it."""

    def __init__(self, url: str, purpose: str, prepare: Callable[[Connection], Awaitable[None]] | None = None) -> None:
        self._url = url
        self._purpose = purpose
        self._prepare = prepare
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._pauses = Pauses()
        self._closed = False

    async def get(self, patience: float) -> Connection:
        """The connection, or a new one within `patience` seconds. LogUnavailableError when that fails."""
        give_up = asyncio.get_running_loop().time() + patience
        async with self._connecting:
            while self._connection is None or self._connection.is_closed():
                if self._closed:
                    raise LogClosedError("the event log is closed")
                await self._connect(give_up)
            return self._connection

    def drop(self) -> None:
        """Lets go of a connection that isn't to be trusted any more."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """For good. May be called again."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=CONNECT_SECONDS)
            except CONNECTION_LOST:
                connection.terminate()

    async def _connect(self, give_up: float) -> None:
        now = asyncio.get_running_loop().time
        if now() + self._pauses.left() > give_up:
            raise LogUnavailableError("the event log's database doesn't answer")
        await asyncio.sleep(self._pauses.left())
        connection: Connection | None = None
        ready = False
        try:
            connection = await connect(self._url, self._purpose)
            if self._prepare is not None:
                await self._prepare(connection)
            ready = True
        except CONNECTION_LOST as error:
            self._pauses.failed()
            if now() + self._pauses.left() > give_up:
                raise LogUnavailableError(f"the event log's database doesn't answer: {error}") from error
            return
        except asyncpg.PostgresError as error:
            self._pauses.failed()
            raise opening_error(error) from error
        finally:
            if connection is not None and not ready:
                connection.terminate()
        self._pauses.succeeded()
        self._connection = connection
