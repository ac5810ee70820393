"""`labferry up`: three services in the foreground, ended by Ctrl-C, none left behind whatever happens."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.integration.sync_engine.running_engine import Site, new_site

BIN = Path(sys.executable).parent
SERVICES = ("secrets", "lims_gateway", "sync_engine")


@asynccontextmanager
async def _up(site: Site) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(str(BIN / "labferry"), "up", "--config", str(site.lab.write_config())),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _said_until(process: asyncio.subprocess.Process, text: str) -> str:
    assert process.stderr is not None
    said = ""
    async with asyncio.timeout(60):
        while text not in said:
            line = (await process.stderr.readline()).decode()
            assert line, said
            said += line
    return said


def _children(parent: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


async def _until_gone(pids: list[int]) -> None:
    async with asyncio.timeout(30):
        while any(_is_alive(pid) for pid in pids):
            await asyncio.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        return " Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return False


async def test_all_serve_and_ctrl_c_ends_all_in_order() -> None:
    async with new_site() as site:
        site.equip()
        async with _up(site) as up:
            said = await _said_until(up, "operator.token")
            for service in SERVICES:
                assert site.lab.address(service) in said
                async with grpc.aio.insecure_channel(site.lab.address(service)) as channel:
                    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
                    assert answer.status == health_pb2.HealthCheckResponse.SERVING
            children = _children(up.pid)
            assert len(children) == 3
            up.send_signal(signal.SIGINT)
            assert await up.wait() == 0
            assert not any(_is_alive(pid) for pid in children)


async def test_a_service_that_dies_ends_the_others_and_is_named() -> None:
    async with new_site() as site:
        site.equip()
        async with _up(site) as up:
            await _said_until(up, "operator.token")
            children = _children(up.pid)
            os.kill(children[1], signal.SIGKILL)
            said = await _said_until(up, "ending the others")
            assert "lims_gateway ended with status -9" in said
            assert await up.wait() == 1
            await _until_gone(children)


async def test_killed_it_leaves_no_service_behind() -> None:
    async with new_site() as site:
        site.equip()
        async with _up(site) as up:
            await _said_until(up, "operator.token")
            children = _children(up.pid)
            up.kill()
            await up.wait()
            await _until_gone(children)


async def test_a_wrong_configuration_is_told_once_and_nothing_starts() -> None:
    async with new_site() as site:
        site.equip("lower case")
        site.lab.settings["nonsense"] = True
        site.lab.settings["lims"] = {"endpoint": "ftp://lims", "email": "a@b"}
        async with _up(site) as up:
            assert up.stderr is not None
            said = (await up.stderr.read()).decode()
            assert await up.wait() == 3
            assert said.count("3 mistakes") == 1
            assert not site.lab.state_dir.exists()


async def test_an_address_in_use_is_named() -> None:
    async with new_site() as site:
        site.equip()
        async with _up(site) as first:
            await _said_until(first, "operator.token")
            site.lab.settings["state_dir"] = str(site.lab.folder / "other")
            async with _up(site) as second:
                said = await _said_until(second, "ended with status 75")
                assert "secrets.sock" in said
                assert await second.wait() == 1
