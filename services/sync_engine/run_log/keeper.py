"""Keeps each run's own log file in step with the event log: one line an event, never a line twice (SPEC §1)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from libs.event_log.event import RecordedEvent
from libs.event_log.lease import Leases
from libs.event_log.projection import AppliedEvent, ProjectionRunner
from libs.event_log.store import LeaseLostError, LogUnavailableError
from libs.run_tree.atomic_file import write_atomically
from libs.run_tree.creation_errors import CreationError
from libs.run_tree.creation_json import creation_path, read_creation
from libs.run_tree.creation_record import SyncStatus
from libs.run_tree.wizard_log import LogTags, append_lines, log_line, missing_lines, read_lines
from libs.service_kit.errors import LabferryError
from libs.service_kit.telemetry import Logger
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.engine_log import EngineLog, recorded_at
from services.sync_engine.errors import RunNotFoundError
from services.sync_engine.event_types import EVENT_TYPES, job_stream, run_stream
from services.sync_engine.jobs.read_model import JobFilter, jobs_where
from services.sync_engine.run_log.event_text import said
from services.sync_engine.runs.location import LocatedRun, RunLocator

_GATHER_SECONDS = 0.2
_CLOSE_SECONDS = 5.0
_LEASE_SECONDS = 30.0
_MOST_REMEMBERED = 10_000


class _Mark(msgspec.Struct):
    """Up to where every run's lines were written, of which log."""

    store_id: str
    position: int


@dataclass(slots=True)
class _Due:
    """Events of one run whose lines are to be written; `whole`: the file is compared with all that the log says."""

    events: list[RecordedEvent] = field(default_factory=list)
    whole: bool = False


class RunLogKeeper:
    """Owns the task that writes the lines, shortly after the events. Files that can't be written now get what they lack
    with the run's next event, or at the next start."""

    def __init__(
        self,
        log: EngineLog,
        projections: ProjectionRunner,
        locator: RunLocator,
        threads: WorkThreads,
        logger: Logger,
        *,
        mark_file: Path,
        hostname: str,
        engine_id: str,
        leases: Leases | None,
    ) -> None:
        """`leases` where other engines follow the same log: then one of them at a time writes to a run's file."""
        self._log = log
        self._projections = projections
        self._locator = locator
        self._threads = threads
        self._logger = logger
        self._mark_file = mark_file
        self._hostname = hostname
        self._engine_id = engine_id
        self._leases = leases
        self._run_of_job: dict[str, str] = {}
        self._in_step: dict[str, LogTags] = {}
        self._arrived: list[RecordedEvent] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._work(), name="run logs")

    async def close(self) -> None:
        """Writes what has come so far, and ends; a folder that hangs is not waited for."""
        if self._task is None:
            return
        self._closing = True
        self._wake.set()
        await asyncio.wait([self._task], timeout=_CLOSE_SECONDS)
        self._task.cancel()
        await asyncio.wait([self._task])

    def applied(self, batch: Sequence[AppliedEvent]) -> None:
        """The callback of the projections."""
        self._arrived += [event for event, _ in batch]
        self._wake.set()

    async def _work(self) -> None:
        mark = await self._threads.run(self._read_mark)
        behind = mark.position if mark is not None and mark.store_id == self._log.store.store_id else 0
        async for page in self._log.store.read(behind, upto=self._log.store.head):
            await self._write(page, whole=True)
        while not self._closing:
            await self._wake.wait()
            # A transfer's events come close together; one look at the file serves them all.
            await asyncio.sleep(_GATHER_SECONDS)
            self._wake.clear()
            await self._write_arrived()

    async def _write_arrived(self) -> None:
        events, self._arrived = self._arrived, []
        if events:
            await self._write(events, whole=False)

    async def _write(self, events: Sequence[RecordedEvent], *, whole: bool) -> None:
        for run, due in (await self._by_run(events, whole)).items():
            try:
                await self._alone(run, due)
            except (LabferryError, OSError, LogUnavailableError, LeaseLostError) as error:
                self._in_step.pop(run, None)
                if isinstance(error, FileNotFoundError | RunNotFoundError) and await self._was_cleaned(run):
                    continue
                self._logger.warning("run_log_behind", run=run, problem=str(error))
        mark = _Mark(self._log.store.store_id, events[-1].position)
        await self._threads.run(lambda: write_atomically(self._mark_file, msgspec.json.encode(mark), mode=0o600))

    async def _was_cleaned(self, run: str) -> bool:
        """Then the file may have been deleted with the rest (`retain_cache`), and nothing is behind."""
        try:
            return (await self._log.run(run)).sync_status is SyncStatus.CLEANED
        except LogUnavailableError:
            return False

    async def _by_run(self, events: Sequence[RecordedEvent], whole: bool) -> dict[str, _Due]:
        await self._learn_runs(events)
        due: dict[str, _Due] = {}
        for event in events:
            run = self._run_of(event)
            if run is not None:
                entry = due.setdefault(run, _Due(whole=whole or run not in self._in_step))
                entry.events.append(event)
        return due

    async def _learn_runs(self, events: Sequence[RecordedEvent]) -> None:
        ids = {e.stream.removeprefix("job-") for e in events if e.stream.startswith("job-")}
        unknown = [job_id for job_id in ids if job_id not in self._run_of_job]
        if unknown:
            if len(self._run_of_job) > _MOST_REMEMBERED:
                self._run_of_job.clear()
                unknown = list(ids)
            placed = await self._projections.query(lambda c: jobs_where(c, JobFilter(job_ids=unknown)))
            self._run_of_job |= {p.job.job_id: p.job.run for p in placed}

    def _run_of(self, event: RecordedEvent) -> str | None:
        kind, _, name = event.stream.partition("-")
        if kind == "job":
            return self._run_of_job.get(name)
        return name if kind == "run" else None

    async def _alone(self, run: str, due: _Due) -> None:
        if self._leases is None:
            await self._one(run, due)
            return
        lease = await self._leases.acquire(f"run-log-{run}", self._engine_id, _LEASE_SECONDS)
        if lease is None:
            # Another engine, which has or will have heard of these events too, is writing.
            return
        try:
            await self._one(run, _Due(whole=True))
        finally:
            await self._leases.release(lease)

    async def _one(self, run: str, due: _Due) -> None:
        located = await self._threads.run(lambda: self._locator.locate(run))
        if due.whole:
            if len(self._in_step) > _MOST_REMEMBERED:
                self._in_step.clear()
            self._in_step[run] = await self._threads.run(lambda: self._tags(located))
            events = await self._all_events(run)
        else:
            events = due.events
        tags = self._in_step[run]
        lines = [_line(event, tags) for event in events]
        await self._threads.run(lambda: self._append(located, lines, compare=due.whole))

    async def _all_events(self, run: str) -> list[RecordedEvent]:
        jobs = await self._projections.query(lambda c: jobs_where(c, JobFilter(run=run)))
        streams = [run_stream(run), *(job_stream(p.job.job_id) for p in jobs)]
        events = [event for stream in streams for event in await self._log.store.read_stream(stream)]
        arrived = {event.position for event in self._arrived}
        return sorted((e for e in events if e.position not in arrived), key=lambda e: e.position)

    def _append(self, located: LocatedRun, lines: Sequence[bytes], *, compare: bool) -> None:
        wanted = missing_lines(lines, read_lines(located.folder)) if compare else list(lines)
        if wanted:
            append_lines(located.folder, self._hostname, wanted)

    def _tags(self, located: LocatedRun) -> LogTags:
        short_id, kind = "", located.path.kind_by_leaf
        try:
            creation = read_creation(creation_path(located.folder))
            short_id, kind = creation.lims_short_id, creation.run_kind
        except CreationError:
            # Without the file the folder's name tells the kind, and nothing tells the project's short id.
            pass
        return LogTags(
            host=self._hostname,
            equipment=located.path.equipment_id,
            project=short_id,
            kind=kind.value if kind is not None else "",
            run=located.folder.name,
        )

    def _read_mark(self) -> _Mark | None:
        try:
            return msgspec.json.decode(self._mark_file.read_bytes(), type=_Mark)
        except (FileNotFoundError, msgspec.DecodeError):
            return None


def _line(event: RecordedEvent, tags: LogTags) -> bytes:
    level, text = said(event.type, EVENT_TYPES.decode(event), event.actor, event.reason)
    return log_line(recorded_at(event), level, tags, text)
