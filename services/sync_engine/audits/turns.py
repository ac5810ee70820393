"""When each file of a proven copy had its turn to be read, whether or not it matched: the order of the scrub.

A file that stays rotten, or can't be read, keeps its old evidence; its turn is over all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from labferry.events.v1 import job_events_pb2 as events
from libs.event_log.blob_store import BlobStore
from services.sync_engine.audits.first_seen import TimeOf
from services.sync_engine.engine_log import recorded_at
from services.sync_engine.event_types import EVENT_TYPES, job_stream
from services.sync_engine.jobs.file_list import read_copied, read_evidence
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.last_readings import last_of_each
from services.sync_engine.jobs.read_since import read_since
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.path_order import InStep
from services.sync_engine.transfer.spilled_list import SpilledList
from services.sync_engine.transfer.transport import CopiedFile


class _Turn(msgspec.Struct, frozen=True, array_like=True):
    """`portion` is its number."""

    path: bytes
    portion: int


@dataclass(frozen=True, slots=True)
class _Portion:
    """A part of the copy that was read: the files that matched, and those that didn't. A blob may be empty."""

    evidence_blob: str
    unproven_blob: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Turns:
    """`whole`: when every file had its turn; None: never. `portions`, and which files were in them, came later."""

    whole: datetime | None
    portions: tuple[_Portion, ...]
    files: SpilledList[_Turn]

    def of(self, files: Iterable[CopiedFile]) -> Iterator[tuple[CopiedFile, datetime | None]]:
        """Each file, which are sorted by path, and when it had its last turn."""
        later = InStep(self.files)
        for file in files:
            turn = later.at(file.path)
            yield file, self.whole if turn is None else self.portions[turn.portion].time


async def turns(bench: Workbench, job: Job, file_count: int, time_of: TimeOf) -> Turns:
    """What the job's stream tells of its so many files. BlobError when a list of files is lost or damaged."""
    whole: datetime | None = None
    portions: list[_Portion] = []
    for event in await bench.log.store.read_stream(job_stream(job.job_id)):
        read, at = EVENT_TYPES.decode(event), time_of(recorded_at(event), event.position)
        match read:
            case events.JobFilesScrubbed():
                portions.append(_Portion(read.evidence_blob, "", read_since(read, at)))
            case events.JobVerificationFailed() if read.HasField("oldest_evidence_time"):
                portions.append(_Portion(read.evidence_blob, read.unproven_blob, read_since(read, at)))
            case events.JobVerified() | events.JobVerificationFailed():
                whole, portions = read_since(read, at), []
            case _:
                pass
    found = tuple(portions)
    return Turns(whole, found, await bench.threads.run(lambda: _last_turns(bench.blobs, found, file_count)))


def _last_turns(blobs: BlobStore, portions: Sequence[_Portion], file_count: int) -> SpilledList[_Turn]:
    def read(number: int) -> Iterator[_Turn]:
        portion = portions[number]
        if portion.evidence_blob:
            for matched in read_evidence(blobs, portion.evidence_blob):
                yield _Turn(matched.path, number)
        if portion.unproven_blob:
            for file in read_copied(blobs, portion.unproven_blob):
                yield _Turn(file.path, number)

    return last_of_each(_Turn, len(portions), read, file_count)
