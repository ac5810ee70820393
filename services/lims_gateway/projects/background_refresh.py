"""Refreshes a LIMS's cache before it expires, and while somebody follows its projects."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from libs.event_log.store import EventStoreError
from libs.service_kit.errors import LabferryError
from libs.service_kit.telemetry import Logger
from services.lims_gateway.projects.directory import Directory
from services.lims_gateway.projects.errors import CacheUnusableError, LimsLoginRefusedError
from services.lims_gateway.projects.policy import AskFailure, CacheState
from services.lims_gateway.projects.refresh_schedule import Attempts, due_ns

# The clock may be set: it is looked at anew this often.
_LONGEST_WAIT_SECONDS = 60.0


class BackgroundRefresh:
    """One task a LIMS, from `start` to `close`. `watch_ns`: how often the LIMS is asked while somebody follows."""

    def __init__(
        self, directory: Directory, watch_ns: int, logger: Logger, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._directory = directory
        self._watch_ns = watch_ns
        self._logger = logger
        self._clock = clock
        self._attempts = Attempts()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._directory.on_news(self._news.set)
        self._task = asyncio.create_task(self._run(), name="background refresh")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            state = await self._cached()
            watch_ns = self._watch_ns if self._directory.is_followed else None
            due = due_ns(state, self._directory.ttl_ns, watch_ns, self._attempts)
            seconds = _LONGEST_WAIT_SECONDS if due is None else (due - self._clock()) / 1e9
            if seconds <= 0:
                await self._try()
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(min(seconds, _LONGEST_WAIT_SECONDS)):
                    await self._news.wait()
            self._news.clear()

    async def _cached(self) -> CacheState | None:
        try:
            return await self._directory.cache_state()
        except CacheUnusableError as error:
            self._failed(AskFailure.UNREACHABLE, error.message)
            return None

    async def _try(self) -> None:
        try:
            await self._directory.refresh()
        except LimsLoginRefusedError as error:
            self._failed(AskFailure.REFUSED, error.message)
        except LabferryError as error:
            self._failed(AskFailure.UNREACHABLE, error.message)
        except EventStoreError as error:
            self._failed(AskFailure.NOT_KEPT, str(error))
        else:
            self._attempts = Attempts(self._clock())

    def _failed(self, failure: AskFailure, problem: str) -> None:
        self._attempts = self._attempts.failed(self._clock(), failure)
        self._logger.warning("lims_not_refreshed", lims=self._directory.base, problem=problem)
