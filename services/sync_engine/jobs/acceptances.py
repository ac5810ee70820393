"""Which acceptances still count at a destination: each is spent once a job that began after it is proven there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from labferry.events.v1.job_events_pb2 import JobStarted
from labferry.events.v1.run_events_pb2 import RunChangeAccepted
from services.sync_engine.engine_log import EngineLog
from services.sync_engine.event_types import EVENT_TYPES, job_stream, run_stream
from services.sync_engine.jobs.job import Job
from services.sync_engine.runs.run import AcceptedChange, RunRecord


@dataclass(frozen=True, slots=True)
class LastWord:
    """What was accepted last of a file: that the run's holds `new_sha256` (empty: that there is none) in the place of
    any of `old_sha256s`. Destinations may hold different ones, each of which was accepted to be replaced by it."""

    new_sha256: str
    old_sha256s: frozenset[str]


def last_words(accepted: Sequence[AcceptedChange]) -> Mapping[bytes, LastWord]:
    """By path; `accepted` has the oldest first."""
    last = {change.path: change.new_sha256 for change in accepted}
    olds: defaultdict[bytes, set[str]] = defaultdict(set)
    for change in accepted:
        if change.new_sha256 == last[change.path]:
            olds[change.path].add(change.old_sha256)
    return {path: LastWord(new, frozenset(olds[path])) for path, new in last.items()}


async def unspent(log: EngineLog, record: RunRecord, destination: str, proven: Job | None) -> Sequence[AcceptedChange]:
    """The changes that may be brought to a destination beyond what `proven` brought there, oldest first. None: nothing
    is proven there.

    The attempt that was proven heeded what was accepted before it began. What it proved is what a later change is
    measured by: a file that is changed back, or put back, is asked about again.
    """
    accepted = record.accepted_at(destination)
    if proven is None or not accepted:
        return accepted
    began = max(await _positions(log, job_stream(proven.job_id), JobStarted), default=-1)
    recorded = await _positions(log, run_stream(record.run), RunChangeAccepted)
    # The stream may hold more by now than the record that the caller decides on.
    placed = zip(record.accepted, recorded, strict=False)
    return [change for change, at in placed if at > began and change.destination in ("", destination)]


async def _positions(log: EngineLog, stream: str, kind: type[Message]) -> Sequence[int]:
    recorded = await log.store.read_stream(stream)
    return [event.position for event in recorded if isinstance(EVENT_TYPES.decode(event), kind)]
