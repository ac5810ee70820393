"""[problems-first, problems-repeat] Every problem of 10,000 runs, asked for the first time and again.

The peer is the desktop wizard's validation of the same tree, with fewer rules: 3.35 s on a machine like this one, the
first time and every time. Its sources are nobody's business here, so that figure stands for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from bench.engine_process import EngineFolder
from bench.many_small_runs import make_runs
from bench.table import Better, Row, Sample
from labferry.sync.v1 import problem_service_pb2 as pb
from labferry.sync.v1 import problem_service_pb2_grpc as pb_grpc

PEER_SECONDS = 3.35
_RUNS, _FILES, _BAD = 10_000, 3, 100
_SETTLED_SECONDS = 2.5
_ENGINE = EngineFolder(Path("build/bench/problems").resolve())
_EQUIPMENT = [f"CONFOCAL_{n:02}" for n in range(8)]


@asynccontextmanager
async def _runs() -> AsyncIterator[None]:
    await asyncio.to_thread(_ENGINE.prepare)
    runs = await asyncio.to_thread(make_runs, _ENGINE.folder / "lab", _EQUIPMENT, _RUNS, _FILES)
    for run in runs[:_BAD]:
        (_ENGINE.folder / "lab" / run / "{{ left over }}.tif").touch()
    # What was changed within the clock's step is looked at again: it must be older.
    await asyncio.sleep(_SETTLED_SECONDS)
    yield
    await asyncio.to_thread(_ENGINE.remove)


async def _ask(times: int) -> Sample:
    """Seconds of the last of so many questions to a new engine."""
    async with _ENGINE.running() as engine, grpc.aio.insecure_channel(engine.address) as channel:
        stub: Any = pb_grpc.ProblemServiceStub(channel)
        for _ in range(times):
            began = time.perf_counter()
            found = [f async for f in stub.QueryProblems(pb.QueryProblemsRequest(), metadata=engine.authorization)]
            seconds = time.perf_counter() - began
        if len(found) < _BAD:
            raise RuntimeError(f"only {len(found)} findings")
        return Sample(seconds)


async def _first() -> Sample:
    return await _ask(1)


async def _repeated() -> Sample:
    return await _ask(2)


def _peer() -> Sample:
    return Sample(PEER_SECONDS)


def _row(name: str, target: float, ours: Any) -> Row:
    return Row(
        name=name,
        unit="s",
        better=Better.LOWER,
        target=target,
        peer="the wizard (3.35 s)",
        run_ours=ours,
        run_peer=_peer,
        around=_runs,
    )


FIRST = _row("problems-first", 0.5, _first)
REPEATED = _row("problems-repeat", 0.1, _repeated)
