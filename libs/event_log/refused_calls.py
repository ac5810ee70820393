"""Records refused calls in the service's log: the first of a kind at once, those that follow once a minute, counted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from labferry.events.v1.log_events_pb2 import CallsRefused
from libs.event_log.genesis import LOG_STREAM, calls_refused
from libs.event_log.store import EventStore, EventStoreError
from libs.service_kit.refusals import Refusal
from libs.service_kit.telemetry import Logger

_GATHER_SECONDS = 60.0
_MOST_KINDS = 100
_OTHERS = Refusal("", "", "", "OTHERS")
"""What comes in more kinds than anybody could read: counted together."""


@dataclass(slots=True)
class _Kind:
    since: float
    waiting: int


class RefusedCalls:
    """Owns one task. Noting never waits and never fails: a log that can't be written says so itself."""

    def __init__(self, store: EventStore, logger: Logger, gather_seconds: float = _GATHER_SECONDS) -> None:
        self._store = store
        self._logger = logger
        self._gather = gather_seconds
        self._kinds: dict[Refusal, _Kind] = {}
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="refused calls")

    def note(self, refusal: Refusal) -> None:
        """One more refused call."""
        if refusal not in self._kinds and len(self._kinds) >= _MOST_KINDS:
            refusal = _OTHERS
        kind = self._kinds.get(refusal)
        if kind is None:
            # Due at once; the next ones of its kind are gathered.
            kind = self._kinds[refusal] = _Kind(asyncio.get_running_loop().time() - self._gather, 0)
            self._wake.set()
        kind.waiting += 1

    async def close(self) -> None:
        """Records what waits, and ends. The log must still be open."""
        self._task.cancel()
        await asyncio.wait({self._task})
        await self._record(everything=True)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            await self._record(everything=False)
            now = asyncio.get_running_loop().time()
            pause = min((kind.since + self._gather - now for kind in self._kinds.values()), default=None)
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _record(self, *, everything: bool) -> None:
        now = asyncio.get_running_loop().time()
        facts = []
        for refusal, kind in list(self._kinds.items()):
            if not everything and now - kind.since < self._gather:
                continue
            if not kind.waiting:
                del self._kinds[refusal]
                continue
            facts.append(
                CallsRefused(
                    method=refusal.method,
                    actor=refusal.actor,
                    host=refusal.host,
                    reason=refusal.reason,
                    count=kind.waiting,
                )
            )
            kind.since, kind.waiting = now, 0
        if facts:
            try:
                await self._store.append([calls_refused(facts)])
            except EventStoreError as error:
                self._logger.error("refused_calls_not_recorded", stream=LOG_STREAM, problem=str(error))
