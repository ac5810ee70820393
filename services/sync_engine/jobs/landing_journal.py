"""Makes known in the log which files a job is about to put into place, before it does (ARCHITECTURE §4 landing)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from labferry.events.v1 import job_events_pb2 as events
from services.sync_engine.jobs.file_list import encode_copied, read_copied
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.path_order import by_path
from services.sync_engine.transfer.spilled_list import ListSorter
from services.sync_engine.transfer.transfer_control import StopReason, TransferStoppedError
from services.sync_engine.transfer.transport import CopiedFile, FailureKind, TransferError


class LandingJournal:
    """What one job has landed so far, over all its attempts. `record` is called from the transport's thread."""

    def __init__(self, bench: Workbench, job: Job) -> None:
        self.job = job
        self._bench = bench
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._expected: Mapping[bytes, str] = {}

    def landed(self) -> Sequence[CopiedFile]:
        """Every content that this job ever put somewhere, sorted by path, of one path the oldest first. Errors of
        blobs. For worker threads."""
        known = ListSorter(CopiedFile, by_path)
        for batch in self.job.landing_blobs:
            known.extend(read_copied(self._bench.blobs, batch))
        return known.finish()

    def found_wrong(self) -> Sequence[CopiedFile]:
        """What the last verification found differing or missing and nothing was sent in the place of yet, sorted by
        path. Errors of blobs. For worker threads."""
        blob = self.job.differing_blob
        return read_copied(self._bench.blobs, blob) if blob else ()

    def expect(self, accepted: Mapping[bytes, str]) -> None:
        """Of these files only that content may land which an operator accepted."""
        self._expected = accepted

    def record(self, batch: Sequence[CopiedFile]) -> None:
        """Returns when the batch stands in the log. Errors of the log, and of a job that was taken out of this
        attempt's hands, end the attempt."""
        other = [f.path for f in batch if self._expected.get(f.path, f.sha256) != f.sha256]
        if other:
            raise TransferError(FailureKind.SOURCE_CHANGED, "files changed since their change was accepted", other)
        asyncio.run_coroutine_threadsafe(self._append(batch), self._loop).result()

    def close(self) -> None:
        """The attempt is over: a thread that was left behind can land nothing more."""
        self._closed = True

    async def _append(self, batch: Sequence[CopiedFile]) -> None:
        if self._closed:
            raise TransferStoppedError(StopReason.STALLED)
        event = events.JobFilesLanding(
            attempt=self.job.attempt,
            batch_blob=await self._bench.blobs.put(encode_copied(batch)),
            file_count=len(batch),
            byte_count=sum(f.size for f in batch),
        )
        self.job = await self._bench.append(self.job, event)
