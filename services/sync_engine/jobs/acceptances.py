"""Which acceptances still count at a destination: each is spent once a job that began after it is proven there."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from labferry.events.v1.job_events_pb2 import JobStarted
from labferry.events.v1.run_events_pb2 import RunChangeAccepted
from services.sync_engine.engine_log import EngineLog
from services.sync_engine.event_types import EVENT_TYPES, job_stream, run_stream
from services.sync_engine.jobs.job import Job
from services.sync_engine.runs.run import AcceptedChange, RunRecord


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
