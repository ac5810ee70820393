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
    """Of one repair of one copy. `announce` is called from the transport's thread."""

    def __init__(self, bench: Workbench, job: Job) -> None:
        self._bench = bench
        self._job = job
        self._loop = asyncio.get_running_loop()
        self._batches = 0
        self._closed = False

    def announce(self, batch: Sequence[CopiedFile]) -> None:
        """Returns when the batch stands in the log; errors of the log end the repair."""
        asyncio.run_coroutine_threadsafe(self._announce(batch), self._loop).result()

    async def landed(self) -> None:
        """All that was announced is in its place."""
        if self._batches:
            await self._append(events.JobRepairLanded(batch_count=self._batches))

    def close(self) -> None:
        """The repair is over: a thread that was left behind can put nothing more into place."""
        self._closed = True

    async def _announce(self, batch: Sequence[CopiedFile]) -> None:
        if self._closed:
            raise TransferStoppedError(StopReason.STALLED)
        await self._append(
            events.JobCopyRepaired(
                batch_blob=await self._bench.blobs.put(encode_copied(batch)),
                file_count=len(batch),
                byte_count=sum(file.size for file in batch),
            )
        )
        self._batches += 1

    async def _append(self, event: Message) -> None:
        bench, job = self._bench, self._job

        async def attempt() -> None:
            present = await bench.log.job(job.job_id) or job
            await bench.log.append(BY_ITSELF, job_change(present, event), fence=bench.owned.fence(job.job_id))

        await decided_anew(attempt)
