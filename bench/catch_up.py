"""[catch-up] SubscribeEvents from position 0 of a real engine until it says that it is caught up.

There is no peer: the row is measured against what is required.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from bench.engine_process import EngineFolder, RunningEngine
from bench.large_log import LogShape, write_large_log
from bench.table import Better, Row, Sample
from labferry.events.v1 import event_log_service_pb2 as pb
from labferry.events.v1 import event_log_service_pb2_grpc as pb_grpc

SHAPE = LogShape(jobs=4_000, waiting=0, events=100_000)
REQUIRED_EVENTS_A_SECOND = 100_000.0
_ENGINE = EngineFolder(Path("build/bench/catch-up").resolve())


class _CatchUp:
    """The engine, while `serving` is entered."""

    def __init__(self) -> None:
        self._engine: RunningEngine | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        await asyncio.to_thread(_ENGINE.prepare)
        await write_large_log(_ENGINE.log, SHAPE)
        async with _ENGINE.running() as self._engine:
            yield
        await asyncio.to_thread(_ENGINE.remove)

    async def measure(self) -> Sample:
        if self._engine is None:
            raise RuntimeError("the engine isn't running")
        async with grpc.aio.insecure_channel(self._engine.address) as channel:
            await channel.channel_ready()
            stub: Any = pb_grpc.EventLogServiceStub(channel)
            began, received = time.perf_counter(), 0
            stream = stub.SubscribeEvents(
                pb.SubscribeEventsRequest(after_position=0), metadata=self._engine.authorization
            )
            async for response in stream:
                received += len(response.events.events)
                if response.HasField("caught_up"):
                    break
            spent = time.perf_counter() - began
            stream.cancel()
        if received < SHAPE.events:
            raise RuntimeError(f"only {received} events came")
        return Sample(received / spent)


_catch_up = _CatchUp()
ROW = Row(
    name="catch-up",
    unit="events/s",
    better=Better.HIGHER,
    target=1.0,
    peer="required",
    run_ours=_catch_up.measure,
    run_peer=lambda: Sample(REQUIRED_EVENTS_A_SECOND),
    around=_catch_up.serving,
)
