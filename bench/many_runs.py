"""[many-runs] 200 runs of 20 x 10 KiB queued at once by one call, until every one is verified, through one engine.

The peer is the desktop wizard's worker, which carries one run at a time: 24.4 s on a machine like this one. Its sources
are nobody's business here, so that figure stands for it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from bench.engine_process import EngineFolder, RunningEngine
from bench.many_small_runs import make_runs
from bench.table import Better, Row, Sample
from labferry.sync.v1 import job_pb2
from labferry.sync.v1 import sync_service_pb2 as pb
from labferry.sync.v1 import sync_service_pb2_grpc as pb_grpc

ONE_AT_A_TIME_SECONDS = 24.4
_PROVEN = {job_pb2.JOB_STATE_VERIFIED, job_pb2.JOB_STATE_CLEANUP_ELIGIBLE}
_ENGINE = EngineFolder(Path("build/bench/many-runs").resolve())
_EQUIPMENT = [f"CONFOCAL_{n:02}" for n in range(8)]


@asynccontextmanager
async def _nothing_left() -> AsyncIterator[None]:
    yield
    await asyncio.to_thread(_ENGINE.remove)


async def _carry() -> Sample:
    await asyncio.to_thread(_ENGINE.prepare)
    runs = await asyncio.to_thread(make_runs, _ENGINE.folder / "lab", _EQUIPMENT)
    await asyncio.to_thread(os.sync)
    async with _ENGINE.running() as engine, grpc.aio.insecure_channel(engine.address) as channel:
        verified, queued = await _until_verified(engine, channel, runs)
    shutil.rmtree(_ENGINE.folder / "nas")
    return Sample(verified, {"queued_s": queued})


async def _until_verified(engine: RunningEngine, channel: grpc.aio.Channel, runs: list[str]) -> tuple[float, float]:
    stub: Any = pb_grpc.SyncServiceStub(channel)
    began = time.perf_counter()
    watch = stub.WatchJobs(pb.WatchJobsRequest(), metadata=engine.authorization)
    queueing = asyncio.create_task(_queue(engine, stub, runs))
    proven: set[str] = set()
    async for update in watch:
        if update.job.state == job_pb2.JOB_STATE_FAILED:
            raise RuntimeError(f"a job failed: {update.job.failure.message}")
        if update.job.state in _PROVEN:
            proven.add(update.job.run)
            if len(proven) == len(runs):
                break
    verified = time.perf_counter() - began
    return verified, await queueing - began


async def _queue(engine: RunningEngine, stub: Any, runs: list[str]) -> float:
    async for answer in stub.EnqueueRuns(pb.EnqueueRunsRequest(runs=runs), metadata=engine.authorization):
        if answer.outcome != pb.ENQUEUE_OUTCOME_QUEUED:
            raise RuntimeError(f"{answer.run} was not queued: {answer}")
    return time.perf_counter()


def _one_at_a_time() -> Sample:
    return Sample(ONE_AT_A_TIME_SECONDS)


ROW = Row(
    name="many-runs",
    unit="s",
    better=Better.LOWER,
    target=0.1,
    peer="one run at a time (24.4 s)",
    run_ours=_carry,
    run_peer=_one_at_a_time,
    around=_nothing_left,
)
