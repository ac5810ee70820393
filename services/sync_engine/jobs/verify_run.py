"""VerifyRun: reads a run's destinations back on request, records each pass, and moves no job."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from labferry.sync.v1 import sync_service_pb2
from libs.service_kit.errors import UnavailableError
from services.sync_engine.engine_log import Cause, decided_anew, job_change, run_change
from services.sync_engine.errors import DestinationUnusableError, NothingVerifiedError, no_destination
from services.sync_engine.jobs.job import PROVEN_STATES, Job
from services.sync_engine.jobs.job_history import evolve
from services.sync_engine.jobs.progress import JobProgressMeter, ProgressSnapshot
from services.sync_engine.jobs.read_model import last_proven, latest_by_destination
from services.sync_engine.jobs.verify_step import (
    Occasion,
    Verification,
    ends_the_job,
    inconclusive,
    is_inconclusive,
    quarantine,
    verify_destination,
    waits_for_a_larger_bound,
    what_follows,
)
from services.sync_engine.jobs.work_in_hand import WorkInHand
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl, TransferStoppedError
from services.sync_engine.transfer.transport import TransferError, VerifyOutcome

T = TypeVar("T")


class VerifyRun:
    """The command. A caller that goes away ends its pass, of which then nothing is recorded."""

    def __init__(self, bench: Workbench, in_hand: WorkInHand) -> None:
        self._bench = bench
        self._in_hand = in_hand

    async def verify(
        self, run: str, destination: str | None, cause: Cause, max_stream_bytes: int | None = None
    ) -> AsyncGenerator[ProgressSnapshot | sync_service_pb2.VerifyReport, None]:
        """Progress, then one report a destination. A job that waits for a larger `max_stream_bytes` goes on when this
        pass finds everything. NothingVerifiedError, DestinationNotFoundError,
        DestinationUnusableError when a pass couldn't check, after the reports of the other destinations."""
        unusable: list[DestinationUnusableError] = []
        for job, place in await self._chosen(run, destination):
            try:
                async with aclosing(self._one(job, place, cause, max_stream_bytes)) as updates:
                    async for update in updates:
                        yield update
            except DestinationUnusableError as error:
                unusable.append(error)
        if unusable:
            raise _of_all(unusable)

    async def _chosen(self, run: str, destination: str | None) -> Sequence[tuple[Job, Destination]]:
        bench = self._bench
        path = bench.locator.parse(run)
        jobs_so_far = await bench.jobs_of_run(run)
        bench.locator.equipment(path.equipment_id, was_there=bool(jobs_so_far))
        places = {d.name: d for d in bench.destinations[path.equipment_id]}
        gone = {job.destination: job for job in jobs_so_far}.keys() - places.keys()
        if destination is not None and destination not in places:
            raise no_destination(path.equipment_id, destination, was_there=destination in gone)
        latest = latest_by_destination(jobs_so_far)
        held = {name: job for name, job in latest.items() if waits_for_a_larger_bound(job)}
        # An amendment under way takes nothing back of what was proven before it.
        jobs = {**last_proven(jobs_so_far), **held}
        chosen = [(job, places[name]) for name, job in jobs.items() if name in places and destination in (None, name)]
        if not chosen and gone and destination is None:
            raise no_destination(path.equipment_id, sorted(gone)[0], was_there=True)
        if not chosen:
            raise NothingVerifiedError(f"run {run} has no verified job to verify against", metadata={"run": run})
        return chosen

    async def _one(
        self, job: Job, place: Destination, cause: Cause, max_stream_bytes: int | None
    ) -> AsyncGenerator[ProgressSnapshot | sync_service_pb2.VerifyReport, None]:
        bench = self._bench
        await self._refuse_if_away(job, place)
        control = TransferControl()
        news = asyncio.Event()
        loop = asyncio.get_running_loop()
        meter = JobProgressMeter(lambda: loop.call_soon_threadsafe(news.set))

        async def do(work: Callable[[], T]) -> T:
            # Any number of callers may ask for the same run at once.
            return await self._in_hand.do(f"request {uuid.uuid4()}", control, meter, work)

        work = asyncio.create_task(
            verify_destination(bench, job, place, Occasion.REQUEST, do, control, meter, max_stream_bytes)
        )
        try:
            work.add_done_callback(lambda _: news.set())
            while not work.done():
                # Cleared before the caller takes its time: what comes meanwhile, the end above all, is not missed.
                news.clear()
                yield meter.snapshot()
                await news.wait()
            found = await work
        except TransferError as error:
            # A pass that could not check is one that failed; a job that was never verified still awaits one.
            if job.state in PROVEN_STATES:
                broke_off = inconclusive(bench, job, Occasion.REQUEST, error, max_stream_bytes or 0)
                await self._record(job, place, broke_off, cause)
            raise _unusable(job, error.message) from error
        except TransferStoppedError as stopped:
            raise UnavailableError("the engine ends") from stopped
        finally:
            control.stop(StopReason.CANCELLED)
            if not work.done():
                # What hangs is left behind in its thread: nobody who went away is waited for.
                work.cancel()
                await asyncio.wait([work])
        await self._record(job, place, found, cause)
        yield found.report

    async def _refuse_if_away(self, job: Job, place: Destination) -> None:
        # What isn't there is no pass: it says nothing about the copy.
        try:
            away = await self._bench.watch.ask(job.equipment_id, place)
        except TransferError as error:
            raise _unusable(job, error.message) from error
        if away is not None:
            raise _unusable(job, away.message)

    async def _record(self, job: Job, place: Destination, found: Verification, cause: Cause) -> None:
        bench = self._bench

        async def attempt() -> None:
            present = await bench.log.job(job.job_id)
            if present is None or not _can_be_verified(present) or present.attempt != job.attempt:
                # What was read is no longer the copy that counts.
                return
            if present.state in PROVEN_STATES:
                await bench.log.append(cause, job_change(present, found.event))
            elif not is_inconclusive(found.outcome):
                follows = what_follows(bench, present, found)
                if ends_the_job(follows):
                    await self._keep_aside(present, place, found.outcome)
                events = (found.event, *follows)
                after = present
                for event in events:
                    after = evolve(after, event, bench.clock())
                record, change = await bench.status_after(after)
                await bench.log.append(cause, job_change(present, *events), run_change(record, *change))

        await decided_anew(attempt)

    async def _keep_aside(self, job: Job, place: Destination, wrong: VerifyOutcome) -> None:
        control, meter, blobs = self._bench.control_of(job), JobProgressMeter(lambda: None), self._bench.blobs
        async with self._bench.owned.over(job.job_id, job.equipment_id, in_slot=False) as mine:
            if not mine:
                raise UnavailableError(f"another engine works on job {job.job_id} now")
            try:
                await self._in_hand.do(
                    f"request {uuid.uuid4()}", control, meter, lambda: quarantine(blobs, job, place, wrong, control)
                )
            except TransferError as error:
                # Nothing is recorded: the job waits as before.
                raise _unusable(job, error.message) from error
            except TransferStoppedError as stopped:
                raise UnavailableError("the engine ends") from stopped


def _unusable(job: Job, detail: str) -> DestinationUnusableError:
    return DestinationUnusableError(
        f"{job.destination}: {detail}", metadata={"destination": job.destination, "detail": detail}
    )


def _of_all(errors: Sequence[DestinationUnusableError]) -> DestinationUnusableError:
    named = {key: ", ".join(error.metadata[key] for error in errors) for key in ("destination", "detail")}
    return DestinationUnusableError("; ".join(error.message for error in errors), metadata=named)


def _can_be_verified(job: Job) -> bool:
    return job.state in PROVEN_STATES or waits_for_a_larger_bound(job)
