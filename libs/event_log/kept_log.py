"""A service's log with all that belongs to it: what a check reads and a backup takes along."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from libs.event_log.blob_store import BlobStore
from libs.event_log.blob_verification import BlobCheck
from libs.event_log.checkpoint_keeper import CheckpointKeeper
from libs.event_log.checkpoint_verification import CheckpointCheck
from libs.event_log.event import EventTypes
from libs.event_log.log_verification import LogVerdict, verify_log
from libs.event_log.store import EventStore


@dataclass(frozen=True, slots=True)
class KeptLog:
    """`blobs` None: no event names any. `checkpoints` None: none are made."""

    store: EventStore
    event_types: EventTypes
    blobs: BlobStore | None = None
    checkpoints: CheckpointKeeper | None = None

    async def verify(self, first: int = 1, last: int | None = None, *, read_blobs: bool = True) -> LogVerdict:
        """Checks a range against everything that there is to compare with. PositionBeyondHeadError."""
        checkpoints: CheckpointCheck | None = None
        if self.checkpoints is not None:
            checkpoints = CheckpointCheck(self.checkpoints.service, self.store.store_id, self.checkpoints.trusted)
            await asyncio.to_thread(checkpoints.load, await self.checkpoints.expected())
        blobs = BlobCheck(self.blobs, self.event_types) if self.blobs is not None and read_blobs else None
        return await verify_log(self.store, first, last, checkpoints=checkpoints, blobs=blobs)
