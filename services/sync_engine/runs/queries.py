"""What is asked about runs: now, or as of an earlier moment of the log."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice

from labferry.sync.v1 import run_pb2
from libs.event_log.projection import ProjectionRunner
from libs.event_log.store import PositionBeyondHeadError
from libs.run_tree.creation_errors import CreationError
from libs.run_tree.creation_record import SyncStatus
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.audits.read_again import ReadAgain
from services.sync_engine.engine_log import EngineLog, recorded_at
from services.sync_engine.errors import EquipmentNotConfiguredError, RunNotFoundError
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.messages import JobMessages, job_message
from services.sync_engine.jobs.read_model import JobFilter, jobs_where
from services.sync_engine.jobs.waiting import recorded_waits
from services.sync_engine.runs.creation_projection import CreationFiles
from services.sync_engine.runs.listing import RunFilter, logged_runs, page_token, place_of, runs_after
from services.sync_engine.runs.location import LocatedRun, RunLocator
from services.sync_engine.runs.messages import known_fields, run_message
from services.sync_engine.runs.run import RunRecord


class RunQueries:
    """Reads run folders, read models and streams; changes nothing."""

    def __init__(
        self,
        log: EngineLog,
        projections: ProjectionRunner,
        files: CreationFiles,
        locator: RunLocator,
        messages: JobMessages,
        threads: WorkThreads,
        clock: Callable[[], datetime],
        read_again: ReadAgain,
    ) -> None:
        self._log = log
        self._projections = projections
        self._files = files
        self._locator = locator
        self._messages = messages
        self._threads = threads
        self._clock = clock
        self._read_again = read_again

    async def run(self, run: str, as_of: run_pb2.AsOf | None) -> run_pb2.Run:
        """Errors: those of the run's place. A creation.json that can't be read is left out; a run whose folder is gone,
        or whose equipment isn't configured any more, and of which the log knows, is told from the log alone."""
        if as_of is not None:
            return await self._run_as_of(run, await self.position_of(as_of))
        located = await self._locate(run)
        record = await self._log.run(run)
        found = await self.jobs_of_run(run)
        jobs, again = [self._messages.of(job) for job in found], await self._read_again.of(found)
        for job in jobs:
            if reading := again.get(job.job_id):
                job.next_reading = reading.words
                if reading.time is not None:
                    job.next_reading_time.FromDatetime(reading.time)
        creation = None
        if located is not None:
            with suppress(CreationError):
                creation = await self._files.read(located)
        message = run_message(self._locator.parse(run), record, creation, jobs)
        message.gone = located is None
        return message

    async def _locate(self, run: str) -> LocatedRun | None:
        """None for a run that can't be found any more, and of which the log knows."""
        try:
            return await self._threads.run(lambda: self._locator.locate(run))
        except (RunNotFoundError, EquipmentNotConfiguredError):
            if (await self._log.run(run)).revision < 0 and not await self.jobs_of_run(run):
                raise
            return None

    async def page(self, equipment_id: str, wanted: RunFilter, size: int, token: str) -> tuple[list[run_pb2.Run], str]:
        """Runs with the token of the next page, empty on the last. EquipmentNotConfiguredError for one that the log
        doesn't know either."""
        after = place_of(token)
        logged = await self._projections.query(logged_runs)
        known = {run.partition("/")[0] for run in logged}
        wanted_ids = {equipment_id} if equipment_id else known.union(e.id for e in self._locator.all_equipment)
        gone = {each for each in wanted_ids & known if not self._locator.is_configured(each)}
        equipment = [self._locator.equipment(each) for each in wanted_ids - gone]
        roots = await self._threads.run(lambda: {e.id: self._locator.roots_of(e) for e in equipment})
        roots |= dict.fromkeys(gone, ())

        def status_of(run: str) -> SyncStatus:
            return logged.get(run, SyncStatus.PENDING)

        listed = await self._threads.run(
            lambda: list(islice(runs_after(roots, list(logged), status_of, wanted, after), size + 1))
        )
        shown = listed[:size]
        jobs = await self._projections.query(
            lambda c: {run.path: jobs_where(c, JobFilter(run=str(run.path))) for run in shown}
        )
        messages = []
        for run in shown:
            record = await self._log.run(str(run.path))
            of_run = [self._messages.of(p.job) for p in jobs[run.path]]
            messages.append(run_message(run.path, record, run.creation, of_run))
        return messages, page_token(str(shown[-1].path)) if len(listed) > size else ""

    async def jobs_of_run(self, run: str) -> list[Job]:
        """In the order they were queued."""
        placed = await self._projections.query(lambda c: jobs_where(c, JobFilter(run=run)))
        return [p.job for p in placed]

    async def record(self, run: str, as_of: run_pb2.AsOf | None) -> tuple[RunRecord, datetime]:
        """What the log knows of a run, and the moment that expiry is judged by."""
        if as_of is None:
            await self._locate(run)
            return await self._log.run(run), self._clock()
        position = await self.position_of(as_of)
        record = await self._log.run(str(self._locator.parse(run)), upto_position=position)
        if as_of.HasField("time"):
            return record, as_of.time.ToDatetime(tzinfo=UTC)
        return record, await self._time_at(position)

    async def position_of(self, as_of: run_pb2.AsOf) -> int:
        """PositionBeyondHeadError for a position that isn't there yet."""
        if as_of.HasField("time"):
            return await self._log.store.last_position_at(as_of.time.ToNanoseconds())
        if as_of.position > self._log.store.head:
            raise PositionBeyondHeadError(as_of.position, self._log.store.head)
        return as_of.position

    async def _time_at(self, position: int) -> datetime:
        async for page in self._log.store.read(position - 1, upto=position):
            return recorded_at(page[0])
        return self._clock()

    async def _run_as_of(self, run: str, position: int) -> run_pb2.Run:
        path = self._locator.parse(run)
        record = await self._log.run(run, upto_position=position)
        jobs = []
        for job in await self.jobs_of_run(run):
            then = await self._log.job(job.job_id, upto_position=position)
            if then is not None:
                jobs.append(job_message(then, recorded_waits(then)))
        message = run_message(path, record, None, jobs)
        message.creation.CopyFrom(known_fields(record))
        return message
