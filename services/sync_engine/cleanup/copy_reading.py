"""Reads a copy back before its run's local data goes: within its bandwidth, in portions, out of transfers' way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from libs.event_log.blob_store import BlobError
from libs.run_tree.run_path import RunPath
from services.sync_engine.audits.braked_progress import BrakedProgress
from services.sync_engine.audits.portions import PortionedPass
from services.sync_engine.cleanup.work import CleanupWork
from services.sync_engine.jobs.file_list import read_copied
from services.sync_engine.jobs.job import Job, JobHistoryError
from services.sync_engine.jobs.progress import JobProgressMeter
from services.sync_engine.jobs.verify_step import Occasion, Verification, inconclusive, verification_of
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.bandwidth import BandwidthBrake
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl, TransferStoppedError
from services.sync_engine.transfer.transport import CopiedFile, FailureKind, TransferError, VerifyOutcome


class CopyReading:
    """`brakes` by (equipment, destination). `is_idle` says whether an equipment's slot is free; `busy` hears when that
    changes. A reading that `gives_way` waits for a free slot, and when a transfer begins it ends, to read that portion
    again later; one that somebody asked for goes on beside transfers."""

    def __init__(
        self,
        bench: Workbench,
        work: CleanupWork,
        brakes: Mapping[tuple[str, str], BandwidthBrake],
        is_idle: Callable[[str], bool],
    ) -> None:
        self._bench = bench
        self._work = work
        self._brakes = brakes
        self._is_idle = is_idle
        self._giving_way: dict[TransferControl, str] = {}
        self._news = asyncio.Event()

    def busy(self, equipment_id: str, busy: bool) -> None:
        """An equipment's slot was taken, or is free again."""
        self._news.set()
        for control, equipment in self._giving_way.items():
            if busy and equipment == equipment_id:
                control.stop(StopReason.GIVES_WAY)

    def stop(self) -> None:
        """The engine ends: nobody waits any more."""
        self._work.stop()
        self._news.set()

    async def whole(self, job: Job, place: Destination, *, gives_way: bool) -> Verification:
        """One pass over every file; one that broke off has failed. TransferStoppedError: nothing was found out."""
        bench = self._bench
        try:
            expected = await bench.threads.run(lambda: read_copied(bench.blobs, job.files_blob or ""))
            reading = PortionedPass(expected)
            while portion := reading.next():
                reading.note(portion, await self.portion(job, place, portion, expected, gives_way=gives_way))
        except BlobError as error:
            return inconclusive(bench, job, Occasion.CLEANUP, TransferError(FailureKind.INTERNAL, str(error)))
        except TransferError as error:
            return inconclusive(bench, job, Occasion.CLEANUP, error)
        outcome = reading.outcome()
        if outcome is None:
            raise JobHistoryError(f"job {job.job_id} proved a copy without a file")
        return await verification_of(bench, job, expected, outcome, Occasion.CLEANUP)

    async def portion(
        self,
        job: Job,
        place: Destination,
        files: Sequence[CopiedFile],
        whole: Sequence[CopiedFile],
        *,
        gives_way: bool,
    ) -> VerifyOutcome:
        """Some files of a copy. TransferError, TransferStoppedError."""
        while True:
            if gives_way:
                await self._until_idle(job.equipment_id)
            control = TransferControl()
            if gives_way:
                self._giving_way[control] = job.equipment_id
            try:
                return await self._read(job, place, files, whole, control)
            except TransferStoppedError as stopped:
                if stopped.reason is not StopReason.GIVES_WAY:
                    raise
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
        meter = JobProgressMeter(lambda: None)
        progress = BrakedProgress(meter, self._brakes[job.equipment_id, place.name], control)
        target = RunPath.parse(job.run).below_equipment
        return await self._work.do(
            control,
            meter,
            lambda: place.transport.verify(target, files, control=control, progress=progress, whole=whole),
        )

    async def _until_idle(self, equipment_id: str) -> None:
        while not self._is_idle(equipment_id):
            if self._work.stopping:
                raise TransferStoppedError(StopReason.ENGINE_STOPPING)
            self._news.clear()
            await self._news.wait()
