"""Readers that take nothing while much happens: the others are served, nothing is kept for them, and once they go on
they get all of it, or a clear end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from labferry.events.v1 import event_log_service_pb2 as log_pb
from labferry.sync.v1 import problem_service_pb2 as pb
from tests.faults.hardening.whole_lab import resident_bytes
from tests.integration.secrets.running_service import error_info
from tests.integration.sync_engine.running_engine import BLOCKED, Engine, new_site, running_engine

pytestmark = pytest.mark.slow

READERS = 12
ROUNDS = 40
FINDINGS = 100
# As long as a path can be: what happens is much by what it says, not by how often it happens.
DEEP = "/".join(["d" * 250] * 12)
# The log grows by 13 MiB: kept for each reader, that would be more.
GROWTH = 96 * 2**20
PATIENCE = 60


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with new_site() as site:
        site.equip()
        async with running_engine(site) as engine:
            yield engine


async def much_happens(engine: Engine, run: str) -> None:
    """Each time the refusal tells of every finding anew, and one of them is another than before."""
    folder = engine.site.local(run) / DEEP
    for number in range(ROUNDS):
        (folder / f"<f0_{number}>").rename(folder / f"<f0_{number + 1}>")
        assert (await engine.enqueue(run)).outcome == BLOCKED
    # Somebody who reads is told all the while.
    assert len(await problems(engine, run)) == FINDINGS


async def problems(engine: Engine, run: str) -> set[str]:
    query = engine.problems.QueryProblems(pb.QueryProblemsRequest(run=run))
    return {finding.offending_path async for finding in query}


def make_run(engine: Engine) -> str:
    names = ["<f0_0>", *(f"<f{number}>" for number in range(1, FINDINGS))]
    return engine.site.make_run({f"{DEEP}/{name}": b"" for name in names})


def memory(engine: Engine) -> int:
    return resident_bytes(engine.service.process.pid)


def following(engine: Engine, after: int) -> Any:
    return engine.log.SubscribeEvents(log_pb.SubscribeEventsRequest(after_position=after))


async def test_of_the_log(engine: Engine) -> None:
    run = make_run(engine)
    await engine.enqueue(run)
    calls = [following(engine, 0) for _ in range(READERS)]
    firsts = [await call.read() for call in calls]
    before = memory(engine)
    await much_happens(engine, run)
    assert memory(engine) < before + GROWTH
    expected = [event.position for event in await engine.events()]
    for call, first in zip(calls, firsts, strict=True):
        assert await positions(engine, call, first, expected[-1]) == expected


async def positions(engine: Engine, call: Any, first: Any, last: int) -> list[int]:
    """Of all events up to `last`; one that was cut off goes on where it was told to."""
    seen = [event.position for event in first.events.events]
    async with asyncio.timeout(PATIENCE):
        while not seen or seen[-1] < last:
            try:
                step = await call.read()
            except grpc.aio.AioRpcError as error:
                info = error_info(error)
                assert (info.reason, info.metadata["last_position"]) == ("SUBSCRIBER_TOO_SLOW", str(seen[-1]))
                call = following(engine, seen[-1])
                continue
            seen += [event.position for event in step.events.events]
    call.cancel()
    return seen


async def test_of_problems(engine: Engine) -> None:
    run = make_run(engine)
    calls = [engine.problems.WatchProblems(pb.WatchProblemsRequest(run=run)) for _ in range(READERS)]
    for call in calls:
        await call.read()
    before = memory(engine)
    await much_happens(engine, run)
    assert memory(engine) < before + GROWTH
    now = await problems(engine, run)
    for call in calls:
        assert await present(call, now)


async def present(call: Any, expected: set[str]) -> bool:
    """Whether the changes come to the findings that there are, or the stream says why not all of them can come."""
    known: set[str] = set()
    async with asyncio.timeout(PATIENCE):
        while known != expected:
            try:
                update = await call.read()
            except grpc.aio.AioRpcError as error:
                return error_info(error).reason in ("SUBSCRIBER_TOO_SLOW", "DEPENDENCY_UNAVAILABLE")
            match update.WhichOneof("change"):
                case "added":
                    known.add(update.added.offending_path)
                case "removed":
                    known.discard(update.removed.offending_path)
    call.cancel()
    return True
