"""A sync engine's log as it is after some years: jobs queued, carried, verified again and again, and sealed.

Written through the store itself, with real payloads, so what reads it finds what an engine would have left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from labferry.events.v1 import job_events_pb2 as events
from labferry.events.v1 import run_events_pb2
from labferry.sync.v1 import job_pb2, run_pb2
from libs.event_log.event import NewEvent
from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import Expected, StreamAppend
from libs.event_log.uuid7 import Uuid7Source
from libs.service_kit.version import LABFERRY_VERSION
from services.sync_engine.event_types import ENGINE, EVENT_TYPES, job_stream, run_stream

_STREAMS_AN_APPEND = 500
_PASSES_AT_ONCE = 100
_YEAR_SECONDS = 31_536_000


@dataclass(frozen=True, slots=True)
class LogShape:
    """How many jobs, and how many of them wait in backoff; the others are sealed, and verified again until `events`
    are recorded. ValueError when there are no others."""

    jobs: int
    waiting: int
    events: int

    def __post_init__(self) -> None:
        if self.waiting >= self.jobs:
            raise ValueError("some jobs must be sealed: their verifications fill the log")


async def write_large_log(path: Path, shape: LogShape) -> None:
    """Makes the log at `path`. About 20 seconds a million events."""
    store = await SqliteEventStore.open(path, service="sync_engine", version=LABFERRY_VERSION)
    try:
        ids = [_new_id() for _ in range(shape.jobs)]
        appends: list[StreamAppend] = []
        for append in _histories(ids, shape):
            appends.append(append)
            if len(appends) == _STREAMS_AN_APPEND:
                await store.append(appends)
                appends = []
        await store.append(appends)
        sealed = ids[shape.waiting :]
        while store.head < shape.events:
            for start in range(0, len(sealed), _PASSES_AT_ONCE):
                missing = shape.events - store.head
                passes = [_passed_again(i) for i in sealed[start : start + min(_PASSES_AT_ONCE, missing)]]
                await store.append(passes)
    finally:
        await store.close()


_ids = Uuid7Source()


def _new_id() -> str:
    return _ids.next(time.time_ns())


def _histories(ids: Sequence[str], shape: LogShape) -> Iterator[StreamAppend]:
    for number, job_id in enumerate(ids):
        run = f"CONFOCAL_{number % 8:02}/Cortex Q3 Pilot/Runs/Run_{number:06}"
        queued = events.JobQueued(job_id=job_id, run=run, equipment_id=run[:11], destination="default")
        started = events.JobStarted(attempt=1, engine_id="e-1", incoming_folder=f"{job_id}-1")
        if number < shape.waiting:
            yield _append(job_stream(job_id), queued, started, _failed())
        else:
            yield _append(job_stream(job_id), queued, started, *_carried(number))
            status = run_events_pb2.RunSyncStatusChanged(
                run=run, previous=run_pb2.SYNC_STATUS_PENDING, current=run_pb2.SYNC_STATUS_SYNCED
            )
            yield _append(run_stream(run), status)


def _failed() -> events.JobAttemptFailed:
    return events.JobAttemptFailed(
        failure=job_pb2.JobFailure(kind=job_pb2.FAILURE_KIND_NETWORK, message="the share doesn't answer"),
        next_attempt_time=Timestamp(seconds=int(time.time()) + _YEAR_SECONDS),
    )


def _carried(number: int) -> Iterator[Message]:
    manifest, files = f"{number:064x}", f"{number + 1:064x}"
    yield events.JobFilesLanding(attempt=1, batch_blob=files, file_count=500, byte_count=1 << 30)
    yield events.JobCopied(attempt=1, manifest_blob=manifest, files_blob=files, file_count=500, byte_count=1 << 30)
    yield _verified(manifest, "transfer")
    yield events.JobSealed(snapshot_blob=files, file_count=3, sync_status=run_pb2.SYNC_STATUS_SYNCED)


def _verified(manifest: str, occasion: str) -> events.JobVerified:
    return events.JobVerified(
        manifest_sha256=manifest,
        expected=500,
        hashed=500,
        matched=500,
        method="uncached_read",
        grade="E4",
        host="workstation-1",
        evidence_blob=manifest,
        occasion=occasion,
    )


def _passed_again(job_id: str) -> StreamAppend:
    return _append(job_stream(job_id), _verified("f" * 64, "request"), expected=Expected.EXISTS)


def _append(stream: str, *payloads: Message, expected: Expected = Expected.NONE) -> StreamAppend:
    made: list[NewEvent] = [EVENT_TYPES.new_event(payload, actor=ENGINE) for payload in payloads]
    return StreamAppend(stream, expected, made)
