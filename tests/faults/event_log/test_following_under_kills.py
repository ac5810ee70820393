"""Server and client are killed at random instants: whoever follows the log sees every event once, in order."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from labferry.secrets.v1 import secrets_service_pb2 as secrets_pb
from tests.faults.event_log.following import whole_lines
from tests.integration.secrets.running_service import Lab, RunningService, new_lab, start

WRITERS = 8
KILLS = 6
SEEN_BETWEEN_KILLS = 150


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """A secrets service's configuration: every question about names is an event."""
    async with new_lab() as lab:
        lab.write_passphrase()
        yield lab


async def write(service: RunningService, enough: asyncio.Event) -> None:
    """Has events recorded until the service dies, or there are enough."""
    stub = await service.secrets()

    async def writer() -> None:
        while not enough.is_set():
            await stub.ListSecrets(secrets_pb.ListSecretsRequest())

    with suppress(grpc.aio.AioRpcError):
        await asyncio.gather(*(writer() for _ in range(WRITERS)))


def seen(notes: Path) -> list[tuple[int, str]]:
    lines = whole_lines(notes.read_bytes()).splitlines()
    return [(position, event_id) for line in lines for position, event_id in json.loads(line)["events"]]


async def start_following(lab: Lab, notes: Path) -> asyncio.subprocess.Process:
    arguments = (lab.address("secrets"), lab.token("operator"), str(notes))
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.faults.event_log.following", *arguments)


async def until_seen(notes: Path, count: int, client: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(60):
        while len(seen(notes)) < count:
            assert client.returncode is None, "the client met an error that a dying service doesn't explain"
            await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_nothing_is_missed_and_nothing_comes_twice(lab: Lab, tmp_path: Path) -> None:
    await follow_under_kills(lab, tmp_path / "seen")


@pytest.mark.slow
async def test_nor_on_postgresql(lab: Lab, tmp_path: Path, postgres_url: str) -> None:
    lab.settings["event_log"] = {"url": postgres_url}
    await follow_under_kills(lab, tmp_path / "seen")


async def follow_under_kills(lab: Lab, notes: Path) -> None:
    notes.touch()
    enough = asyncio.Event()
    service = await start(lab, "secrets")
    writing = asyncio.create_task(write(service, enough))
    client = await start_following(lab, notes)
    try:
        for victim in random.sample(["service", "client"] * (KILLS // 2), KILLS):
            await until_seen(notes, len(seen(notes)) + random.randrange(1, SEEN_BETWEEN_KILLS), client)
            if victim == "service":
                await service.kill()
                await writing
                await service.resources.aclose()
                service = await start(lab, "secrets")
                writing = asyncio.create_task(write(service, enough))
            else:
                client.kill()
                await client.wait()
                client = await start_following(lab, notes)
        await until_seen(notes, len(seen(notes)) + 1, client)
        enough.set()
        await writing
        recorded = [(event.position, event.event_id) for event in await service.events()]
        await until_seen(notes, len(recorded), client)
    finally:
        writing.cancel()
        client.kill()
        await client.wait()
        await service.kill()
        await service.resources.aclose()
    assert seen(notes) == recorded
    assert [position for position, _ in recorded] == list(range(1, len(recorded) + 1))
