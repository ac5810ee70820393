"""Tells the scheduler and watchers of each job that changed, or has work again, as soon as the read model has it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial

from labferry.events.v1 import run_events_pb2
from libs.event_log.projection import AppliedEvent, ProjectionRunner
from services.sync_engine.jobs.read_model import PlacedJob
from services.sync_engine.jobs.seals_due import jobs_as_work, jobs_of_run_to_seal

_PAGE = 500
_IN_CREATION_FILE = (
    run_events_pb2.RunSyncStatusChanged,
    run_events_pb2.RunOverrideRecorded,
    run_events_pb2.RunOverrideRevoked,
    run_events_pb2.RunOverrideImported,
)

Listener = Callable[[PlacedJob], None]


class JobNews:
    """Owns the task that turns applied events into changed jobs. A job that changes often is told as it is last."""

    def __init__(self, projections: ProjectionRunner) -> None:
        self._projections = projections
        self._changed: dict[str, None] = {}
        self._changed_runs: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._listeners: list[Listener] = []
        self._due_listeners: list[Listener] = []
        self._unsubscribe = projections.on_applied(self._applied)
        self._task = asyncio.create_task(self._tell(), name="job news")

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Returns the way to stop listening."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def listen_to_due(self, listener: Listener) -> None:
        """Hears of jobs that their run's new sync_status or override gives work again: destinations are sealed anew."""
        self._due_listeners.append(listener)

    async def close(self) -> None:
        self._unsubscribe()
        self._task.cancel()
        await asyncio.wait([self._task])

    def _applied(self, batch: Sequence[AppliedEvent]) -> None:
        for event, payload in batch:
            if event.stream.startswith("job-"):
                self._changed[event.stream.removeprefix("job-")] = None
            elif isinstance(payload, _IN_CREATION_FILE):
                self._changed_runs[event.stream.removeprefix("run-")] = None
        if self._changed or self._changed_runs:
            self._wake.set()

    async def _tell(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            changed, self._changed = list(self._changed), {}
            for start in range(0, len(changed), _PAGE):
                wanted = changed[start : start + _PAGE]
                for placed in await self._projections.query(partial(_told, wanted)):
                    for listener in tuple(self._listeners):
                        listener(placed)
            runs, self._changed_runs = list(self._changed_runs), {}
            for run in runs:
                for placed in await self._projections.query(partial(_due, run)):
                    for listener in self._due_listeners:
                        listener(placed)


def _told(job_ids: Sequence[str], connection: sqlite3.Connection) -> list[PlacedJob]:
    return jobs_as_work(connection, job_ids)


def _due(run: str, connection: sqlite3.Connection) -> list[PlacedJob]:
    return jobs_of_run_to_seal(connection, run)
