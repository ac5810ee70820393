"""[replay] From a log on disk to the states of all its jobs, against `eventsourcing`'s repository.

Both hold 2,000 jobs of 25 events in SQLite. Ours reads the whole log page by page and folds every job; the peer's
repository loads each aggregate, as its users do.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from bench.large_log import LogShape, write_large_log
from bench.table import Better, Row, Sample
from libs.event_log.sqlite_store import SqliteEventStore
from services.sync_engine.engine_log import recorded_at
from services.sync_engine.event_types import EVENT_TYPES
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.job_history import evolve

JOBS = 2_000
EVENTS_A_JOB = 25
_FOLDER = Path("build/bench/replay")


class _CarriedJob(Aggregate):
    """The peer's job: the same facts, as its decorators make events of them."""

    @event("Queued")
    def __init__(self, run: str, equipment_id: str, destination: str) -> None:
        self.run, self.equipment_id, self.destination = run, equipment_id, destination
        self.state, self.attempt, self.verify_passes = "queued", 0, 0

    @event("Started")
    def start(self, attempt: int, engine_id: str, incoming_folder: str) -> None:
        self.state, self.attempt = "running", attempt

    @event("Verified")
    def verify(self, manifest_sha256: str, expected: int, hashed: int, matched: int, evidence_blob: str) -> None:
        self.state = "verified"
        self.verify_passes += 1


class _Peer:
    def __init__(self) -> None:
        self.application: Application[UUID] | None = None
        self.ids: list[UUID] = []

    def fill(self, folder: Path) -> None:
        self.application = Application(
            env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(folder / "peer.sqlite3")}
        )
        for number in range(JOBS):
            job = _CarriedJob(run=f"CONFOCAL_01/Runs/{number}", equipment_id="CONFOCAL_01", destination="default")
            job.start(attempt=1, engine_id="e-1", incoming_folder=f"{number}-1")
            for _ in range(EVENTS_A_JOB - 2):
                job.verify(manifest_sha256="f" * 64, expected=500, hashed=500, matched=500, evidence_blob="e" * 64)
            self.application.save(job)
            self.ids.append(job.id)

    def replay(self) -> Sample:
        if self.application is None:
            raise RuntimeError("the peer has no log")
        began = time.perf_counter()
        jobs: list[_CarriedJob] = [self.application.repository.get(job_id) for job_id in self.ids]
        spent = time.perf_counter() - began
        if any(job.version != EVENTS_A_JOB for job in jobs):
            raise RuntimeError("the peer replayed something else")
        return Sample(JOBS * EVENTS_A_JOB / spent)

    def close(self) -> None:
        if self.application is not None:
            self.application.close()


_peer = _Peer()


@asynccontextmanager
async def _logs() -> AsyncIterator[None]:
    folder = _empty_folder()
    await write_large_log(folder / "events.sqlite3", LogShape(jobs=JOBS, waiting=0, events=JOBS * EVENTS_A_JOB))
    _peer.fill(folder)
    yield
    _peer.close()
    shutil.rmtree(folder)


def _empty_folder() -> Path:
    shutil.rmtree(_FOLDER, ignore_errors=True)
    _FOLDER.mkdir(parents=True)
    return _FOLDER.resolve()


async def _ours() -> Sample:
    store = await SqliteEventStore.open(_FOLDER / "events.sqlite3", service="sync_engine", version="0")
    try:
        began = time.perf_counter()
        jobs: dict[str, Job] = {}
        async for page in store.read():
            for recorded in page:
                if not recorded.stream.startswith("job-"):
                    continue
                payload = EVENT_TYPES.decode(recorded)
                if payload is not None:
                    jobs[recorded.stream] = evolve(jobs.get(recorded.stream), payload, recorded_at(recorded))
        spent = time.perf_counter() - began
        if len(jobs) != JOBS:
            raise RuntimeError(f"{len(jobs)} jobs were replayed")
        return Sample(store.head / spent)
    finally:
        await store.close()


ROW = Row(
    name="replay",
    unit="events/s",
    better=Better.HIGHER,
    target=5,
    peer="eventsourcing, repository on SQLite",
    run_ours=_ours,
    run_peer=_peer.replay,
    around=_logs,
)
