"""[enqueue] Runs queued a second, each with a fresh walk of its folder by the gate, 64 calls in flight.

The peer's figure, 566 a second, is the desktop wizard's queue on a machine like this one. The equipment is paused, so
that nothing but queueing goes on.
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
from bench.many_small_runs import make_runs
from bench.table import Better, Row, Sample
from labferry.sync.v1 import equipment_service_pb2, equipment_service_pb2_grpc
from labferry.sync.v1 import sync_service_pb2 as pb
from labferry.sync.v1 import sync_service_pb2_grpc as pb_grpc

PEER_RATE = 566.0
_RUNS, _FILES, _IN_FLIGHT = 3_000, 5, 64
_ENGINE = EngineFolder(Path("build/bench/enqueue").resolve())
_EQUIPMENT = [f"CONFOCAL_{n:02}" for n in range(8)]


@asynccontextmanager
async def _runs() -> AsyncIterator[None]:
    await asyncio.to_thread(_ENGINE.prepare)
    await asyncio.to_thread(make_runs, _ENGINE.folder / "lab", _EQUIPMENT, _RUNS, _FILES)
    yield
    await asyncio.to_thread(_ENGINE.remove)


async def _queue_all() -> Sample:
    await asyncio.to_thread(_ENGINE.forget)
    runs = [str(p.relative_to(_ENGINE.folder / "lab")) for p in sorted((_ENGINE.folder / "lab").glob("*/*/Runs/Run_*"))]
    async with _ENGINE.running() as engine, grpc.aio.insecure_channel(engine.address) as channel:
        await _pause(engine, channel)
        stub: Any = pb_grpc.SyncServiceStub(channel)
        left = iter(runs)
        began = time.perf_counter()
        await asyncio.gather(*(_caller(engine, stub, left) for _ in range(_IN_FLIGHT)))
        return Sample(len(runs) / (time.perf_counter() - began))


async def _pause(engine: RunningEngine, channel: grpc.aio.Channel) -> None:
    stub: Any = equipment_service_pb2_grpc.EquipmentServiceStub(channel)
    for equipment_id in _EQUIPMENT:
        request = equipment_service_pb2.PauseEquipmentRequest(equipment_id=equipment_id, reason="benchmark")
        await stub.PauseEquipment(request, metadata=engine.authorization)


async def _caller(engine: RunningEngine, stub: Any, left: Any) -> None:
    for run in left:
        answer = await stub.EnqueueRun(pb.EnqueueRunRequest(run=run), metadata=engine.authorization)
        if answer.outcome != pb.ENQUEUE_OUTCOME_QUEUED:
            raise RuntimeError(f"{run} was not queued: {answer}")


def _peer() -> Sample:
    return Sample(PEER_RATE)


ROW = Row(
    name="enqueue",
    unit="runs/s",
    better=Better.HIGHER,
    target=3.0,
    peer="the wizard's queue (566/s)",
    run_ours=_queue_all,
    run_peer=_peer,
    around=_runs,
)
