"""Leases that replicas share: functions beside the log, over a connection of their own so that no read delays one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg

from libs.event_log.lease import Lease
from libs.event_log.postgres_connection import PATIENCE_SECONDS, LastingConnection
from libs.event_log.postgres_errors import CONNECTION_LOST, store_error
from libs.event_log.store import LeaseLostError
from libs.service_kit.boot_clock import boot_seconds


class PostgresLeases:
    """Leases in a service's schema. Every call can be repeated, so one whose connection broke is."""

    def __init__(self, schema: str, connection: LastingConnection) -> None:
        self._schema = schema
        self._connection = connection
        self._turn = asyncio.Lock()

    async def acquire(self, name: str, holder: str, seconds: float) -> Lease | None:
        token, asked = await self._ask("acquire_lease($1, $2, $3)", name, holder, seconds)
        return None if token is None else Lease(name, holder, token, asked + seconds)

    async def renew(self, lease: Lease, seconds: float) -> Lease:
        renewed, asked = await self._ask("renew_lease($1, $2, $3)", lease.name, lease.token, seconds)
        if not renewed:
            raise LeaseLostError(lease.fence)
        return Lease(lease.name, lease.holder, lease.token, asked + seconds)

    async def release(self, lease: Lease) -> None:
        await self._ask("release_lease($1, $2)", lease.name, lease.token)

    async def holder(self, name: str) -> str | None:
        held, _ = await self._ask("leases WHERE name = $1 AND expires > clock_timestamp()", name, column="holder")
        return None if held is None else str(held)

    async def close(self) -> None:
        await self._connection.close()

    async def _ask(self, source: str, *arguments: object, column: str = "*") -> tuple[Any, float]:
        """The one value found, and `boot_seconds` just before it was asked for."""
        sql = f"SELECT {column} FROM {self._schema}.{source}"
        give_up = time.monotonic() + PATIENCE_SECONDS
        async with self._turn:
            while True:
                connection = await self._connection.get(give_up - time.monotonic())
                asked = boot_seconds()
                try:
                    return await connection.fetchval(sql, *arguments), asked
                except CONNECTION_LOST:
                    self._connection.drop()
                except asyncpg.PostgresError as error:
                    raise store_error(error) from error
