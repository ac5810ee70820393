"""Keeps the health of SecretsService in step with the vault: NOT_SERVING while sealed."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from libs.service_kit.server import ServiceServer


class SealHealth:
    """`changed` notes a new state, and one task carries it to the server; the last state wins."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._serving = False
        self._news = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    def changed(self, sealed: bool) -> None:
        self._serving = not sealed
        self._news.set()

    def begin(self, server: ServiceServer) -> None:
        """Follows from here on; a change noted before counts."""
        self._following = asyncio.create_task(self._follow(server), name="seal health")

    async def end(self) -> None:
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following

    async def _follow(self, server: ServiceServer) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await server.set_serving(self._service, self._serving)
