"""Files of a proven copy that are not sent once more: they were put back, and are wrong again (ARCHITECTURE §4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from labferry.events.v1 import equipment_events_pb2, job_events_pb2
from libs.event_log.blob_store import BlobStore
from services.sync_engine.event_types import EVENT_TYPES, destination_stream, job_stream
from services.sync_engine.jobs.file_list import read_copied
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.path_order import InStep, by_path
from services.sync_engine.transfer.spilled_list import ListSorter, SpilledList
from services.sync_engine.transfer.transport import VerifyOutcome

_MOST_ANNOUNCED = 2
"""A file that is still missing after so many repairs of which nobody knows whether they came to their end."""


class _Repaired(msgspec.Struct, frozen=True, array_like=True):
    """A file that was about to be put back; `landed`: it is known to have come to its place."""

    path: bytes
    landed: bool


async def given_up(bench: Workbench, job: Job, outcome: VerifyOutcome) -> Sequence[bytes]:
    """Of the files that a reading found wrong those that aren't put back once more, sorted. What was repaired before an
    operator trusted the destination anew doesn't count. BlobError when a list of files is lost or damaged."""
    if not outcome.missing and not outcome.differing:
        return ()
    batches = await _batches(bench, job)
    return await bench.threads.run(lambda: _given_up(outcome, _repaired(bench.blobs, batches))) if batches else ()


async def _batches(bench: Workbench, job: Job) -> Sequence[tuple[str, bool]]:
    """What repairs announced since then, and whether it landed."""
    trusted, found = await _trusted_at(bench, job), list[tuple[str, bool]]()
    for event in await bench.log.store.read_stream(job_stream(job.job_id)):
        if event.position <= trusted:
            continue
        match EVENT_TYPES.decode(event):
            case job_events_pb2.JobCopyRepaired() as announced:
                found.append((announced.batch_blob, False))
            case job_events_pb2.JobRepairLanded() as landed:
                found[-landed.batch_count :] = [(blob, True) for blob, _ in found[-landed.batch_count :]]
            case _:
                pass
    return found


async def _trusted_at(bench: Workbench, job: Job) -> int:
    """The position at which the job's destination was last trusted; 0: never."""
    events = await bench.log.store.read_stream(destination_stream(job.equipment_id, job.destination))
    trusted = EVENT_TYPES.of_class(equipment_events_pb2.DestinationTrusted).name
    return max((event.position for event in events if event.type == trusted), default=0)


def _repaired(blobs: BlobStore, batches: Iterable[tuple[str, bool]]) -> SpilledList[_Repaired]:
    every = ListSorter(_Repaired, by_path)
    for blob, landed in batches:
        every.extend(_Repaired(file.path, landed) for file in read_copied(blobs, blob))
    return every.finish()


def _given_up(outcome: VerifyOutcome, repaired: Iterable[_Repaired]) -> Sequence[bytes]:
    known, differing = InStep(repaired), frozenset(outcome.differing)
    return [
        path
        for path in sorted({*outcome.missing, *differing})
        if _is_given_up(known.all_at(path), differs=path in differing)
    ]


def _is_given_up(repairs: Sequence[_Repaired], *, differs: bool) -> bool:
    # What was wrong before was set aside first: something that is there now came by the repair, whatever ended it.
    arrived = bool(repairs) and (differs or any(repair.landed for repair in repairs))
    return arrived or len(repairs) >= _MOST_ANNOUNCED
