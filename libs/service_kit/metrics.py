"""Figures for Prometheus, on an address of their own that is off unless the configuration names it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import grpc
from prometheus_client import CollectorRegistry, Histogram, start_http_server
from prometheus_client.registry import Collector

_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class CallMetrics:
    """How many calls ended, how, and after what time; `method` is the full path, so there are few of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "labferry_rpc_duration_seconds",
            "Time from a call's arrival to its end; a stream's whole life.",
            ("method", "status"),
            registry=registry,
            buckets=_BUCKETS_SECONDS,
        )

    def ended(self, method: str, status: grpc.StatusCode, seconds: float) -> None:
        self._seconds.labels(method, status.name).observe(seconds)


def metrics_registry(collectors: Iterable[Collector]) -> CollectorRegistry:
    """A registry of this service's own: the library's global one would be shared by all tests of a process."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return registry


@asynccontextmanager
async def serving_metrics(address: str, registry: CollectorRegistry) -> AsyncIterator[str]:
    """Answers GET /metrics at "host:port" on threads of its own; gives the address. OSError when it can't be had."""
    host, _, port = address.rpartition(":")
    server, thread = await asyncio.to_thread(start_http_server, int(port), host.strip("[]"), registry)
    try:
        yield f"{host}:{server.server_port}"
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)
