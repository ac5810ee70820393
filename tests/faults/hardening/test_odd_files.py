"""Pipes, sockets and devices in a run, in the place of whatever is read or written there: nobody waits for them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from labferry.sync.v1 import problem_service_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import EQUIPMENT, PROJECT, Engine, new_site, running_engine

PATIENCE = 60
PLACES = [
    *("a.tif", "README.md", "sub", ".exlab-wizard", ".exlab-wizard/creation.json", ".exlab-wizard/creation.json.lock"),
    *(".exlab-wizard/readme_fields.json", ".exlab-wizard/checksums.sha256", ".exlab-wizard/ingest.json"),
    *(f".exlab-wizard/wizard.{socket.gethostname()}.log", "../.exlab-wizard/runs.json", "../../notes"),
    "../../../.exlab-wizard/equipment.json",
]


def pipe(place: Path) -> None:
    os.mkfifo(place)


def listening_socket(place: Path) -> None:
    # The name of a socket is shorter than most of these paths.
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(place.parent, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{place.name}")
        finally:
            os.close(folder)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with new_site() as site:
        site.equip()
        site.lab.settings["readme"] = {"defaults": [{"id": "x", "label": "X", "type": "string", "required": True}]}
        async with running_engine(site) as engine:
            yield engine


@pytest.mark.parametrize("odd", [pipe, listening_socket])
async def test_nobody_waits_for_them(engine: Engine, odd: Callable[[Path], None]) -> None:
    for number, name in enumerate(PLACES):
        run = engine.site.make_run({"a.tif": b"pixels", "sub/b": b"1"}, leaf=f"Run_2026-04-17T{number:02}-00")
        place = Path(os.path.normpath(engine.site.local(run) / name))
        place.parent.mkdir(exist_ok=True)
        if place.exists():
            place.rename(engine.site.lab.folder / f"aside {odd.__name__} {number}")
        odd(place)
        async with asyncio.timeout(PATIENCE):
            await settled(engine.sync.EnqueueRun(sync_service_pb2.EnqueueRunRequest(run=run)))
            await settled(engine.problems.QueryProblems(problem_service_pb2.QueryProblemsRequest(run=run)))
            await settled(engine.run(run))
            await settled(engine.override(run, 2))
    async with asyncio.timeout(PATIENCE):
        await settled(engine.problems.QueryProblems(problem_service_pb2.QueryProblemsRequest(equipment_id=EQUIPMENT)))
        await settled(
            engine.sync.AdoptRun(
                sync_service_pb2.AdoptRunRequest(
                    source_folder=str(engine.site.local_root / EQUIPMENT / PROJECT / "Runs" / "Run_2026-04-17T00-00"),
                    equipment_id=EQUIPMENT,
                    project="Adopted",
                    operator="asmith",
                )
            )
        )
        undisturbed = engine.site.make_run(leaf="Run_2026-04-18T00-00")
        answer = await engine.enqueue(undisturbed)
        await engine.until(answer.job.job_id, lambda update: update.job.verify_passes > 0)
    assert await engine.service.health() == health_pb2.HealthCheckResponse.SERVING


async def settled(call: Any) -> None:
    """Answered, or refused by name."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        assert error.code() not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), error.details()
