"""Follows what the secrets service tells of itself, so that no question about problems ever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC
from typing import TYPE_CHECKING

import grpc
from grpc.aio import Channel

from labferry.secrets.v1 import secrets_service_pb2 as pb
from labferry.secrets.v1 import secrets_service_pb2_grpc as pb_grpc
from libs.service_kit.telemetry import Logger
from services.sync_engine.secrets.rotation_dates import RotationDates

if TYPE_CHECKING:
    from labferry.secrets.v1.secrets_service_pb2_grpc import SecretsServiceAsyncStub

_PAUSE_SECONDS = 1.0


class SecretsFollower:
    """Keeps `dates` up with the secrets service, from `start` to `close`. `changed` is called after each answer, and
    `opened` awaited when values can be had again."""

    def __init__(
        self,
        channel: Channel,
        dates: RotationDates,
        changed: Callable[[], None],
        opened: Callable[[], Awaitable[None]],
        logger: Logger,
    ) -> None:
        self._secrets: SecretsServiceAsyncStub = pb_grpc.SecretsServiceStub(channel)
        self._dates = dates
        self._changed = changed
        self._opened = opened
        self._is_open = False
        self._logger = logger
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="secrets follower")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        refused: grpc.StatusCode | None = None
        while True:
            try:
                # As long as nobody listens there, the channel tries again by itself.
                async for told in self._secrets.WatchSecrets(pb.WatchSecretsRequest(), wait_for_ready=True):
                    refused = None
                    await self._take(told)
            except grpc.aio.AioRpcError as error:
                self._is_open = False
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, refused):
                    refused = error.code()
                    self._logger.warning("secrets_not_followed", status=refused.name, problem=error.details())
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _take(self, told: pb.WatchSecretsResponse) -> None:
        self._dates.become({date.username: date.rotate_by.ToDatetime(tzinfo=UTC) for date in told.rotation_dates})
        self._changed()
        if not told.sealed and not self._is_open:
            await self._opened()
        self._is_open = not told.sealed


@asynccontextmanager
async def following_secrets(
    channel: Channel,
    dates: RotationDates,
    changed: Callable[[], None],
    opened: Callable[[], Awaitable[None]],
    logger: Logger,
) -> AsyncIterator[None]:
    """Follows while it is entered."""
    follower = SecretsFollower(channel, dates, changed, opened, logger)
    follower.start()
    try:
        yield
    finally:
        await follower.close()
