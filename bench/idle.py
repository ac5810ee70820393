"""[idle] What 100,000 jobs that wait in backoff cost while nothing happens, and how fast they are listed meanwhile.

The value is the processor time that the engine used in ten seconds, as a fraction of one core. The peer polls: 92 % of
a core on a machine like this one.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from bench.engine_process import EngineFolder
from bench.large_log import LogShape, write_large_log
from bench.table import Better, Row, Sample
from labferry.sync.v1 import sync_service_pb2 as pb
from labferry.sync.v1 import sync_service_pb2_grpc as pb_grpc

PEER_FRACTION = 0.92
SHAPE = LogShape(jobs=100_010, waiting=100_000, events=600_000)
_SECONDS = 10.0
_ENGINE = EngineFolder(Path("build/bench/idle").resolve())


@asynccontextmanager
async def _waiting_jobs() -> AsyncIterator[None]:
    await asyncio.to_thread(_ENGINE.prepare)
    await write_large_log(_ENGINE.log, SHAPE)
    async with _ENGINE.running():
        pass
    yield
    await asyncio.to_thread(_ENGINE.remove)


async def _idle() -> Sample:
    async with _ENGINE.running() as engine, grpc.aio.insecure_channel(engine.address) as channel:
        stub: Any = pb_grpc.SyncServiceStub(channel)
        page = await stub.ListJobs(pb.ListJobsRequest(page_size=100), metadata=engine.authorization)
        await _until_quiet(engine.pid)
        before = _processor_seconds(engine.pid)
        await asyncio.sleep(_SECONDS)
        fraction = (_processor_seconds(engine.pid) - before) / _SECONDS
        began = time.perf_counter()
        for job in page.jobs:
            await stub.GetJob(pb.GetJobRequest(job_id=job.job_id), metadata=engine.authorization)
        get_ms = (time.perf_counter() - began) / len(page.jobs) * 1000
        began = time.perf_counter()
        listed = await stub.ListJobs(pb.ListJobsRequest(page_size=1000), metadata=engine.authorization)
        list_ms = (time.perf_counter() - began) * 1000
        if len(listed.jobs) != 1000:
            raise RuntimeError("the engine doesn't list its jobs")
        return Sample(fraction, {"get_ms": get_ms, "list_1000_ms": list_ms})


async def _until_quiet(pid: int) -> None:
    """The check of the log's file after the start is no idling."""
    while True:
        before = _processor_seconds(pid)
        await asyncio.sleep(1.0)
        if _processor_seconds(pid) - before < 0.1:
            return


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peer() -> Sample:
    return Sample(PEER_FRACTION)


ROW = Row(
    name="idle",
    unit="cores",
    better=Better.LOWER,
    target=0.01,
    peer="a queue that polls (92 % of a core)",
    run_ours=_idle,
    run_peer=_peer,
    around=_waiting_jobs,
)
