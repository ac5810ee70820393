"""Load for the RPC rows: so many calls in flight on one channel, for so long."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from bench.table import Sample

IN_FLIGHT = 64
WARM_UP_SECONDS = 0.5
MEASURED_SECONDS = 3.0


async def measure_calls(call: Callable[[], Awaitable[object]]) -> Sample:
    """Calls a second, with `p50_ms` and `p99_ms`. Any failing call ends the measurement with its error."""
    await _run(call, WARM_UP_SECONDS)
    started = time.perf_counter()
    latencies = await _run(call, MEASURED_SECONDS)
    elapsed = time.perf_counter() - started
    centiles = statistics.quantiles(latencies, n=100)
    return Sample(len(latencies) / elapsed, {"p50_ms": centiles[49] * 1e3, "p99_ms": centiles[98] * 1e3})


async def _run(call: Callable[[], Awaitable[object]], seconds: float) -> list[float]:
    latencies: list[float] = []
    deadline = time.perf_counter() + seconds

    async def worker() -> None:
        while (begun := time.perf_counter()) < deadline:
            await call()
            latencies.append(time.perf_counter() - begun)

    async with asyncio.TaskGroup() as workers:
        for _ in range(IN_FLIGHT):
            workers.create_task(worker())
    return latencies
