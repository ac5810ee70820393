"""[startup] A sync engine started on a log of 1,000,000 events and 100,000 jobs, a tenth of them waiting in backoff.

Measured from the start of the process to its first answer to a call, with the memory it has then. There is no peer: the
row is measured against what is required.
"""

from __future__ import annotations

import asyncio
import re
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

SHAPE = LogShape(jobs=100_000, waiting=10_000, events=1_000_000)
REQUIRED_SECONDS = 2.0
MOST_RSS_MIB = 300.0
_ENGINE = EngineFolder(Path("build/bench/startup").resolve())


@asynccontextmanager
async def _large_state() -> AsyncIterator[None]:
    """The log, and its read models caught up: one start before the first round."""
    await asyncio.to_thread(_ENGINE.prepare)
    await write_large_log(_ENGINE.log, SHAPE)
    await _start_and_ask()
    yield
    await asyncio.to_thread(_ENGINE.remove)


async def _start_and_ask() -> Sample:
    began = time.perf_counter()
    async with _ENGINE.running() as engine, grpc.aio.insecure_channel(engine.address) as channel:
        stub: Any = pb_grpc.SyncServiceStub(channel)
        page = await stub.ListJobs(pb.ListJobsRequest(page_size=1), metadata=engine.authorization)
        ready = time.perf_counter() - began
        if len(page.jobs) != 1:
            raise RuntimeError("the engine knows none of the jobs")
        return Sample(ready, {"rss_mib": _resident_mib(engine.pid)})


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    if found is None:
        raise RuntimeError("the process is gone")
    return int(found[1]) / 1024


def _required() -> Sample:
    return Sample(REQUIRED_SECONDS)


ROW = Row(
    name="startup",
    unit="s",
    better=Better.LOWER,
    target=1.0,
    peer="required",
    run_ours=_start_and_ask,
    run_peer=_required,
    limits={"rss_mib": MOST_RSS_MIB},
    around=_large_state,
)
