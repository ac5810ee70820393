"""Reads a copy back before its run's local data goes: within its bandwidth, in portions, out of transfers' way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from services.sync_engine.audits.portion_reading import portion_reading
from services.sync_engine.audits.portions import PortionedPass
from services.sync_engine.cleanup.work import CleanupWork
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.making_way import MakingWay
from services.sync_engine.jobs.progress import JobProgressMeter
from services.sync_engine.jobs.sealed_records import SealedRecords, keep_sealed_records
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.bandwidth import BandwidthBrake
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl, TransferStoppedError
from services.sync_engine.transfer.transport import CopiedFile, VerifyOutcome

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PortionRead:
    """What was found, and the monotonic time since when it is known."""

    outcome: VerifyOutcome
    since: float


class CopyReading:
    """`brakes` by (equipment, destination). `making_way` says whether it may read now; `busy` hears when that
    changes. A reading that `gives_way` waits for that, and when a transfer begins it ends, to read that portion again
    later; one that somebody asked for goes on beside transfers, and so does any other of that run meanwhile."""

    def __init__(
        self,
        bench: Workbench,
        work: CleanupWork,
        brakes: Mapping[tuple[str, str], BandwidthBrake],
        making_way: MakingWay,
    ) -> None:
        self._bench = bench
        self._work = work
        self._brakes = brakes
        self._making_way = making_way
        self._giving_way: dict[TransferControl, Job] = {}
        self._asked_for: Counter[str] = Counter()
        self._news = asyncio.Event()

    def busy(self, equipment_id: str, busy: bool) -> None:
        """An equipment's slot was taken, or is free again."""
        self._news.set()
        if not busy or self._making_way.may_read(equipment_id):
            return
        for control, job in self._giving_way.items():
            if job.equipment_id == equipment_id and not self._asked_for[job.run]:
                control.stop(StopReason.GIVES_WAY)

    @contextmanager
    def asked_for(self, run: str) -> Iterator[None]:
        """While somebody waits for this run."""
        self._asked_for[run] += 1
        self._news.set()
        try:
            yield
        finally:
            self._asked_for[run] -= 1
            if not self._asked_for[run]:
                del self._asked_for[run]

    def stop(self) -> None:
        """The engine ends: nobody waits any more."""
        self._work.stop()
        self._news.set()

    async def whole(
        self,
        job: Job,
        place: Destination,
        files: Sequence[CopiedFile],
        note: Callable[[Sequence[CopiedFile], float], None],
        *,
        gives_way: bool,
    ) -> VerifyOutcome | None:
        """Every file, in portions; `note` hears of each, and since when it is known. None when there is none. Errors as
        `portion`."""
        reading = PortionedPass(files)
        while portion := reading.next():
            read = await self.portion(job, place, portion, files, gives_way=gives_way)
            reading.note(portion, read.outcome)
            note(portion, read.since)
        return reading.outcome()

    async def records(self, job: Job, place: Destination, *, leased: bool) -> SealedRecords:
        """What a seal put beside the copy, put back where it isn't as it was. TransferError, TransferStoppedError."""
        control, meter = TransferControl(), JobProgressMeter(lambda: None)

        async def do(work: Callable[[], T]) -> T:
            return await self._work.do(control, meter, work)

        return await keep_sealed_records(self._bench, job, place, do, control, leased=leased)

    async def portion(
        self,
        job: Job,
        place: Destination,
        files: Sequence[CopiedFile],
        whole: Sequence[CopiedFile],
        *,
        gives_way: bool,
    ) -> PortionRead:
        """Some files of a copy. TransferError; TransferStoppedError: nothing was found out."""
        while True:
            if gives_way:
                await self._until_it_may(job)
            control, begun = TransferControl(), self._bench.monotonic()
            if gives_way:
                self._giving_way[control] = job
            try:
                outcome = await self._read(job, place, files, whole, control)
            except TransferStoppedError as stopped:
                if stopped.reason is not StopReason.GIVES_WAY:
                    raise
            else:
                # Of several files any may have been the first; a file alone is known when it was read to its end.
                return PortionRead(outcome, begun if len(files) > 1 else self._bench.monotonic())
            finally:
                self._giving_way.pop(control, None)

    async def _read(
        self,
        job: Job,
        place: Destination,
        files: Sequence[CopiedFile],
        whole: Sequence[CopiedFile],
        control: TransferControl,
    ) -> VerifyOutcome:
        brake = self._brakes[job.equipment_id, place.name]
        reading = portion_reading(job, place, files, whole, brake, control)
        return await self._work.do(control, reading.meter, reading.work)

    async def _until_it_may(self, job: Job) -> None:
        while not self._making_way.may_read(job.equipment_id) and not self._asked_for[job.run]:
            if self._work.stopping:
                raise TransferStoppedError(StopReason.ENGINE_STOPPING)
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._making_way.pause(job.equipment_id)):
                    await self._news.wait()


async def in_parallel(readings: Sequence[Coroutine[None, None, T]]) -> list[T]:
    """What each came to, once all have ended; the first error of any."""
    found = await asyncio.gather(*readings, return_exceptions=True)
    return [_unless_failed(one) for one in found]


def _unless_failed(found: T | BaseException) -> T:
    if isinstance(found, BaseException):
        raise found
    return found
