"""WatchJobs with many watchers: none blocks the engine, progress comes 4 times a second, tokens lose nothing."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import grpc

from labferry.sync.v1 import job_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import Engine, Site, running_engine, start_engine

WATCHERS = 50
WATCH = sync_service_pb2.WatchJobsRequest


def _slow(site: Site) -> Site:
    site.lab.settings["equipment"].clear()
    site.equip(transport={"bandwidth": {"upload_mbps": 64}})
    return site


def _big_run(site: Site, **where: Any) -> str:
    return site.make_run({f"{n:02}.tif": os.urandom(500_000) for n in range(32)}, **where)


async def _seconds_in_work(engine: Engine, job_id: str) -> float:
    """By the log, from the first attempt to the seal."""
    times = {e.type: e.recorded_time.ToMicroseconds() for e in await engine.events() if e.stream == f"job-{job_id}"}
    return (times["sync.job.sealed.v1"] - times["sync.job.started.v1"]) / 1e6


async def test_fifty_watchers_and_one_that_reads_nothing(site: Site) -> None:
    run = _big_run(_slow(site))
    async with running_engine(site) as engine:
        idle = engine.sync.WatchJobs(WATCH())
        job_id = (await engine.enqueue(run)).job.job_id

        async def watch() -> list[sync_service_pb2.JobUpdate]:
            seen: list[sync_service_pb2.JobUpdate] = []
            await engine.until(job_id, lambda u: seen.append(u) or u.job.sealed)  # type: ignore[func-returns-value]
            return seen

        watched = [asyncio.create_task(watch()) for _ in range(WATCHERS)]
        await engine.until_copying(job_id)
        for _ in range(20):
            await asyncio.wait_for(engine.job(job_id), 5)
        everything = await asyncio.gather(*watched)
        seconds = await _seconds_in_work(engine, job_id)
        assert seconds > 1
        for seen in everything:
            revisions = [u.job.revision for u in seen]
            assert revisions == sorted(revisions)
            progress = [u.progress.phase for u in seen if u.HasField("progress")]
            assert job_pb2.PROGRESS_PHASE_COPYING in progress
            # What it begins with, and both ends of the time, besides.
            assert len(seen) <= 4 * seconds + len(set(revisions)) + len(set(progress)) + 2
        idle.cancel()


async def test_streams_that_a_drain_ends_go_on_with_what_changed_alone(site: Site) -> None:
    engine = await start_engine(_slow(site))
    done = await engine.bring(site.make_run({"a.tif": b"1"}, leaf="Run_2026-04-17T10-00"))
    job_id = (await engine.enqueue(_big_run(site))).job.job_id
    tokens: list[str] = []

    async def to_the_end(ready: asyncio.Event) -> None:
        token = ""
        try:
            async for update in engine.sync.WatchJobs(WATCH()):
                token = update.resume_token
                if update.job.job_id == job_id and update.progress.bytes_done:
                    ready.set()
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            tokens.append(token)

    ready = [asyncio.Event() for _ in range(WATCHERS)]
    reading = [asyncio.create_task(to_the_end(one)) for one in ready]
    await asyncio.gather(*(one.wait() for one in ready))
    assert await engine.service.stop() == 0
    await asyncio.gather(*reading)
    assert len(tokens) == WATCHERS
    async with running_engine(site) as engine:
        for token in set(tokens):
            async for update in engine.sync.WatchJobs(WATCH(resume_token=token)):
                assert update.job.job_id == job_id != done.job_id
                if update.job.sealed:
                    break


async def test_a_token_from_the_middle_of_the_first_list_passes_nothing_by(engine: Engine) -> None:
    """The job that was queued first changed last: whoever saw it alone hasn't seen the others."""
    runs = [engine.site.make_run({"f": b"x"}, leaf=f"Run_2026-04-17T14-{n:02}") for n in range(3)]
    jobs = [await engine.bring(run) for run in runs]
    async for _ in engine.sync.VerifyRun(sync_service_pb2.VerifyRunRequest(run=runs[0])):
        pass
    seen: list[str] = []
    token = ""
    while len(seen) < 3:
        stream = engine.sync.WatchJobs(WATCH(resume_token=token))
        async with asyncio.timeout(20):
            update = await stream.read()
        stream.cancel()
        seen.append(update.job.job_id)
        token = update.resume_token
    assert set(seen) == {job.job_id for job in jobs}
