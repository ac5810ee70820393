"""The history of the projects in the gateway's own log: written before anything else says that something changed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

from libs.event_log.store import EventStore, Expected, StreamAppend
from services.lims_gateway.events import EVENT_TYPES, PROJECT_EVENT_NAMES
from services.lims_gateway.projects.known_projects import KnownProjects, stream_of
from services.lims_gateway.projects.project import ProjectRows

_ITSELF = "service:lims_gateway"


class ProjectHistory:
    """`known` is what the log says up to `position`. Made by `load`."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._turn = asyncio.Lock()
        self.known = KnownProjects()
        self.position = 0

    @classmethod
    async def load(cls, store: EventStore) -> Self:
        history = cls(store)
        await history._catch_up()
        return history

    async def record(self, endpoint: str, rows: ProjectRows) -> None:
        """Records what a reading changed, all of it or nothing. Raises the store's errors."""
        async with self._turn:
            # An append whose outcome was unknown, or whose caller went away, may be in the log.
            await self._catch_up()
            appends = await asyncio.to_thread(self._appends, endpoint, rows)
            if appends:
                await self._store.append(appends)
                await self._catch_up()

    def _appends(self, endpoint: str, rows: ProjectRows) -> Sequence[StreamAppend]:
        # The LIMS changed, and nobody here asked for it: the gateway is the one who noticed.
        return [
            StreamAppend(stream_of(change), Expected.ANY, (EVENT_TYPES.new_event(change, actor=_ITSELF),))
            for change in self.known.changes(endpoint, rows)
        ]

    async def _catch_up(self) -> None:
        head = self._store.head
        async for page in self._store.read(self.position, upto=head, types=PROJECT_EVENT_NAMES):
            for event in page:
                self.known.apply(EVENT_TYPES.decode(event), event.recorded_ns)
            self.position = page[-1].position
        self.position = head
