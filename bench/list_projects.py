"""[list-projects] 10,000 projects through ListProjects, in pages of 1,000, beside the plain SQLite query for them all.

The peer reads the very rows that the gateway's cache holds, in the same order, and does nothing with them: no decoding,
no messages, no socket. The target says what all of that may cost.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import grpc
import msgspec

from bench.gateway_process import ENDPOINT, GatewayFolder, RunningGateway
from bench.table import Better, Row, Sample
from cli.demo.lims_projects import make_rows
from labferry.lims.v1 import lims_service_pb2 as pb
from labferry.lims.v1 import lims_service_pb2_grpc as pb_grpc
from services.lims_gateway.projects.project import Project
from services.lims_gateway.projects.rest_rows import decode_list

_PROJECTS = 10_000
_PAGE = 1_000
_TIMES = 3
_TARGET = 8.0
_GATEWAY = GatewayFolder(Path("build/bench/list-projects").resolve())


class _Listing:
    """The gateway, while `serving` is entered."""

    def __init__(self) -> None:
        self._gateway: RunningGateway | None = None
        self._channel: grpc.aio.Channel | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        await _GATEWAY.prepare(_projects())
        async with AsyncExitStack() as stack:
            self._gateway = await stack.enter_async_context(_GATEWAY.running())
            self._channel = await stack.enter_async_context(grpc.aio.insecure_channel(self._gateway.address))
            yield
        _GATEWAY.remove()

    async def measure(self) -> Sample:
        """Milliseconds for all of them; the best of a few, as the peer's."""
        if self._gateway is None or self._channel is None:
            raise RuntimeError("the gateway isn't running")
        stub: Any = pb_grpc.LimsServiceStub(self._channel)
        best = float("inf")
        for _ in range(_TIMES):
            began, seen, request = time.perf_counter(), 0, pb.ListProjectsRequest(page_size=_PAGE)
            while True:
                page = await stub.ListProjects(request, metadata=self._gateway.authorization)
                seen += len(page.projects)
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
            best = min(best, (time.perf_counter() - began) * 1e3)
            _expect_all(seen)
        return Sample(best)


def _query() -> Sample:
    best = float("inf")
    with closing(sqlite3.connect(_GATEWAY.cache)) as connection:
        for _ in range(_TIMES):
            began = time.perf_counter()
            rows = connection.execute(
                "SELECT * FROM project WHERE endpoint = ? ORDER BY name, uid", (ENDPOINT,)
            ).fetchall()
            best = min(best, (time.perf_counter() - began) * 1e3)
            _expect_all(len(rows))
    return Sample(best)


def _expect_all(count: int) -> None:
    if count != _PROJECTS:
        raise RuntimeError(f"{count} projects instead of {_PROJECTS}")


def _projects() -> Sequence[Project]:
    return decode_list(msgspec.json.encode({"data": make_rows(_PROJECTS)})).projects


_listing = _Listing()
ROW = Row(
    name="list-projects",
    unit="ms",
    better=Better.LOWER,
    target=_TARGET,
    peer="plain sqlite3 query",
    run_ours=_listing.measure,
    run_peer=_query,
    around=_listing.serving,
)
