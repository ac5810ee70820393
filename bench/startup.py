"""[startup] A sync engine started on a log of 1,000,000 events and 100,000 jobs, a tenth of them waiting in backoff.

Measured from the start of the process to its first answer to a call, with the memory it has then. There is no peer: the
row is measured against what is required.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import yaml

from bench.large_log import LogShape, write_large_log
from bench.table import Better, Row, Sample
from labferry.sync.v1 import sync_service_pb2 as pb
from labferry.sync.v1 import sync_service_pb2_grpc as pb_grpc
from libs.service_kit.channel import read_token
from libs.service_kit.identity import OPERATOR_TOKEN_FILE

SHAPE = LogShape(jobs=100_000, waiting=10_000, events=1_000_000)
REQUIRED_SECONDS = 2.0
MOST_RSS_MIB = 300.0
_FOLDER = Path("build/bench/startup").resolve()


@asynccontextmanager
async def _large_state() -> AsyncIterator[None]:
    """The log, and its read models caught up: one start before the first round."""
    await asyncio.to_thread(_prepare, _FOLDER)
    await write_large_log(_FOLDER / "state" / "sync_engine" / "events.sqlite3", SHAPE)
    await _start_and_ask()
    yield
    await asyncio.to_thread(shutil.rmtree, _FOLDER)


def _prepare(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "state" / "sync_engine").mkdir(parents=True, mode=0o700)
    equipment = []
    for number in range(8):
        local, nas = folder / "lab", folder / "nas" / str(number)
        (local / f"CONFOCAL_{number:02}").mkdir(parents=True)
        nas.mkdir(parents=True)
        entry = {"id": f"CONFOCAL_{number:02}", "local_root": str(local)}
        equipment.append({**entry, "transport": {"type": "mounted", "path": str(nas)}})
    listen = dict.fromkeys(("secrets", "lims_gateway", "sync_engine"), "127.0.0.1:0")
    settings = {"state_dir": str(folder / "state"), "listen": listen, "equipment": equipment}
    (folder / "labferry.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


async def _start_and_ask() -> Sample:
    announced, announce_to = os.pipe()
    log = os.open(_FOLDER / "engine.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.sync_engine", "--config", str(_FOLDER / "labferry.yaml")),
        *("--announce-to", str(announce_to)),
        stderr=log,
        pass_fds=(announce_to,),
    )
    os.close(announce_to)
    os.close(log)
    try:
        address = await asyncio.to_thread(_line_from, announced)
        token = read_token(_FOLDER / "state" / OPERATOR_TOKEN_FILE)
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = pb_grpc.SyncServiceStub(channel)
            page = await stub.ListJobs(
                pb.ListJobsRequest(page_size=1), metadata=(("authorization", f"Bearer {token}"),)
            )
        ready = time.perf_counter() - began
        if len(page.jobs) != 1:
            raise RuntimeError("the engine knows none of the jobs")
        return Sample(ready, {"rss_mib": _resident_mib(process.pid)})
    finally:
        process.terminate()
        await process.wait()


def _line_from(descriptor: int) -> str:
    with open(descriptor, encoding="ascii") as announcement:
        return announcement.readline().strip()


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
