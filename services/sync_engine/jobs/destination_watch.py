"""Knows which destinations don't answer, probes each of those with growing pauses, and says when one is back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from libs.event_log.store import LogDiskFullError, LogUnavailableError
from libs.service_kit.telemetry import Logger
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.jobs.failure import Failure, failure_of_transfer
from services.sync_engine.jobs.retry import probe_pause
from services.sync_engine.secrets.purpose import working_for
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transport import FailureKind, TransferError

_MOST_ANSWER_SECONDS = 30.0


@dataclass(slots=True)
class _Down:
    failure: Failure
    since: datetime
    since_moment: float
    next_probe: datetime
    task: asyncio.Task[None] | None = None


class DestinationWatch:
    """Owns one probing task for each destination that is down. `on_back` hears (equipment, destination).

    A destination that says nothing for `stall_seconds`, or for half a minute, doesn't answer.
    """

    def __init__(
        self, threads: WorkThreads, clock: Callable[[], datetime], logger: Logger, stall_seconds: float
    ) -> None:
        self._answer_seconds = min(_MOST_ANSWER_SECONDS, stall_seconds)
        self._threads = threads
        self._clock = clock
        self._logger = logger
        self._down: dict[tuple[str, str], _Down] = {}
        self._looking: dict[tuple[str, str], asyncio.Task[Failure | None]] = {}
        self._listeners: list[Callable[[str, str], None]] = []

    def on_back(self, listener: Callable[[str, str], None]) -> None:
        self._listeners.append(listener)

    def next_probe(self, equipment_id: str, name: str) -> datetime | None:
        """When a destination that is down is asked again; None when it isn't known to be down."""
        down = self._down.get((equipment_id, name))
        return None if down is None else down.next_probe

    def known_down(self, equipment_id: str, name: str) -> Failure | None:
        """What a destination that is known not to answer said last."""
        down = self._down.get((equipment_id, name))
        return None if down is None else down.failure

    async def look(self, equipment_id: str, destination: Destination) -> Failure | None:
        """Asks the destination now, unless it is known to be down. None when it answers; what it says instead is
        remembered, and probed from then on. TransferError for what waiting doesn't mend (a missing folder, no right).
        """
        known = self.known_down(equipment_id, destination.name)
        if known is not None:
            return known
        failure = await self.ask(equipment_id, destination)
        if failure is not None and (equipment_id, destination.name) not in self._down:
            self._begin(equipment_id, destination, failure)
        return failure

    async def ask(self, equipment_id: str, destination: Destination) -> Failure | None:
        """Asks the destination now; one question at a time, shared by all who ask. Errors as `look`."""
        key = (equipment_id, destination.name)
        asking = self._looking.get(key)
        if asking is None or asking.done():
            asking = asyncio.create_task(
                self._check(equipment_id, destination), name=f"check {equipment_id} {destination.name}"
            )
            self._looking[key] = asking
        try:
            return await asyncio.wait_for(asyncio.shield(asking), self._answer_seconds)
        except TimeoutError:
            return Failure(FailureKind.NETWORK, f"it did not answer within {self._answer_seconds:.0f} s")

    async def close(self) -> None:
        """Ends the probing; a question that hangs is left behind."""
        tasks: list[asyncio.Task[None] | asyncio.Task[Failure | None]] = [
            *(down.task for down in self._down.values() if down.task is not None),
            *(asking for asking in self._looking.values() if not asking.done()),
        ]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _check(self, equipment_id: str, destination: Destination) -> Failure | None:
        try:
            with working_for(f"check of {equipment_id}/{destination.name}"):
                await self._threads.run(destination.transport.check)
        except TransferError as error:
            if error.kind not in (FailureKind.NETWORK, FailureKind.TOOL_FAILED):
                raise
            return failure_of_transfer(error)
        return None

    def _begin(self, equipment_id: str, destination: Destination, failure: Failure) -> None:
        now = self._clock()
        down = _Down(failure, now, asyncio.get_running_loop().time(), now)
        self._down[equipment_id, destination.name] = down
        down.task = asyncio.create_task(
            self._probe(equipment_id, destination, down), name=f"probe {equipment_id} {destination.name}"
        )

    async def _probe(self, equipment_id: str, destination: Destination, down: _Down) -> None:
        loop = asyncio.get_running_loop()
        while True:
            pause = probe_pause(timedelta(seconds=loop.time() - down.since_moment))
            down.next_probe = self._clock() + pause
            await asyncio.sleep(pause.total_seconds())
            try:
                failure = await self.ask(equipment_id, destination)
            except TransferError:
                # It answers, if only to refuse: the jobs find out what it says.
                failure = None
            except (LogDiskFullError, LogUnavailableError):
                # What a tool is to be told couldn't be written down here.
                continue
            if failure is None:
                break
            down.failure = failure
        del self._down[equipment_id, destination.name]
        self._logger.info("destination_back", equipment=equipment_id, destination=destination.name)
        for listener in self._listeners:
            listener(equipment_id, destination.name)
