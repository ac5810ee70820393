"""[rpc-read] GetJob, 64 calls in flight, with identity and log line, against a bare echo.

The job is folded from its stream of eight events at each call: what a read gives is never older than the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from bench.echo_peer import EchoPeer
from bench.engine_process import EngineFolder, RunningEngine
from bench.large_log import LogShape, write_large_log
from bench.rpc_load import measure_calls
from bench.table import Better, Row, Sample
from labferry.sync.v1 import sync_service_pb2 as pb
from labferry.sync.v1 import sync_service_pb2_grpc as pb_grpc

_JOBS = 1_000
_EVENTS_A_JOB = 9
_ENGINE = EngineFolder(Path("build/bench/rpc-read").resolve())


class _Reading:
    """The engine and its jobs, while `serving` is entered."""

    def __init__(self) -> None:
        self._engine: RunningEngine | None = None
        self._channel: grpc.aio.Channel | None = None
        self._jobs: list[str] = []
        self.echo = EchoPeer()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        await asyncio.to_thread(_ENGINE.prepare)
        await write_large_log(_ENGINE.log, LogShape(jobs=_JOBS, waiting=0, events=_JOBS * _EVENTS_A_JOB))
        async with AsyncExitStack() as stack:
            self._engine = await stack.enter_async_context(_ENGINE.running())
            self._channel = await stack.enter_async_context(grpc.aio.insecure_channel(self._engine.address))
            page = await self._stub.ListJobs(pb.ListJobsRequest(page_size=_JOBS), metadata=self._engine.authorization)
            self._jobs = [job.job_id for job in page.jobs]
            await stack.enter_async_context(self.echo.serving())
            yield
        await asyncio.to_thread(_ENGINE.remove)

    @property
    def _stub(self) -> Any:
        if self._channel is None:
            raise RuntimeError("the engine isn't running")
        return pb_grpc.SyncServiceStub(self._channel)

    async def measure(self) -> Sample:
        get_job, calls = self._stub.GetJob, 0
        requests = [pb.GetJobRequest(job_id=job_id) for job_id in self._jobs]
        assert self._engine is not None
        authorization = self._engine.authorization

        def call() -> Any:
            nonlocal calls
            calls += 1
            return get_job(requests[calls % len(requests)], metadata=authorization)

        return await measure_calls(call)


_reading = _Reading()
ROW = Row(
    name="rpc-read",
    unit="calls/s",
    better=Better.HIGHER,
    target=0.75,
    peer=EchoPeer.NAME,
    run_ours=_reading.measure,
    run_peer=_reading.echo.measure,
    around=_reading.serving,
)
