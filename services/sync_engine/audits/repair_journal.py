"""Makes known in the log which files a repair is about to put into place, and that they are there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from google.protobuf.message import Message

from labferry.events.v1 import job_events_pb2 as events
from services.sync_engine.engine_log import BY_ITSELF, decided_anew, job_change
from services.sync_engine.jobs.file_list import encode_copied
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.transfer_control import StopReason, TransferStoppedError
from services.sync_engine.transfer.transport import CopiedFile


class RepairJournal:
    """Of one repair of one copy. `announce` and `landed` are called from the transport's thread."""

    def __init__(self, bench: Workbench, job: Job) -> None:
        self._bench = bench
        self._job = job
        self._loop = asyncio.get_running_loop()
        self._announced = set[CopiedFile]()
        self._batches = 0
        self._closed = False

    def announce(self, batch: Sequence[CopiedFile]) -> None:
        """Returns when the batch stands in the log; errors of the log end the repair. A file is made known once,
        however often it is tried: by how often it was, repairs are counted."""
        asyncio.run_coroutine_threadsafe(self._announce(batch), self._loop).result()

    def landed(self) -> None:
        """All that was announced since the last `begin` is in its place."""
        asyncio.run_coroutine_threadsafe(self._landed(), self._loop).result()

    def begin(self) -> None:
        """What was announced before, and did not land, is not known to have come to its place."""
        self._batches = 0

    def close(self) -> None:
        """The repair is over: a thread that was left behind can put nothing more into place."""
        self._closed = True

    async def ended(self, problem: str) -> None:
        """What could be done was done."""
        await self._append(events.JobRepairEnded(problem=problem, file_count=len(self._announced)))

    async def _announce(self, batch: Sequence[CopiedFile]) -> None:
        self._refuse_if_closed()
        new = [file for file in batch if file not in self._announced]
        if not new:
            return
        await self._append(
            events.JobCopyRepaired(
                batch_blob=await self._bench.blobs.put(encode_copied(new)),
                file_count=len(new),
                byte_count=sum(file.size for file in new),
            )
        )
        self._announced.update(new)
        self._batches += 1

    async def _landed(self) -> None:
        self._refuse_if_closed()
        if self._batches:
            await self._append(events.JobRepairLanded(batch_count=self._batches))

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise TransferStoppedError(StopReason.STALLED)

    async def _append(self, event: Message) -> None:
        bench, job = self._bench, self._job

        async def attempt() -> None:
            present = await bench.log.job(job.job_id) or job
            await bench.log.append(BY_ITSELF, job_change(present, event), fence=bench.owned.fence(job.job_id))

        await decided_anew(attempt)
