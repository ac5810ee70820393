"""Several engines with one staging root on one PostgreSQL: one drives it, and another goes on when that one dies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import grpc
import pytest

from labferry.sync.v1 import staging_service_pb2 as pb
from tests.faults.sync_engine.test_replicas import LEASE, replica_of
from tests.integration.sync_engine.running_engine import (
    PATIENCE,
    Engine,
    Site,
    new_site,
    running_engine,
    same_tree,
    start_engine,
)
from tests.integration.sync_engine.staging_site import CLEARED, IN_ORDER, VERIFIED, Pushed, push, stage, until_state
from tests.integration.sync_engine.test_bad_input import refused
from tests.integration.sync_engine.test_staging_clearing import clear, proven


@pytest.fixture
async def first(postgres_url: str) -> AsyncIterator[Site]:
    async with new_site() as site:
        site.equip()
        stage(site)
        site.lab.settings["nas_cleanup"] = {"enabled": True, "min_verify_passes": 1, "min_age_hours": 0}
        site.lab.settings["transfer"] = LEASE
        site.lab.settings["event_log"] = {"url": postgres_url, "blob_folder": str(site.lab.folder / "blobs")}
        yield site


async def _until_driving(engine: Engine) -> None:
    async with asyncio.timeout(PATIENCE):
        while not (await engine.staged()).driving:
            await asyncio.sleep(0.05)


async def _until_cleared(engine: Engine, one: Pushed) -> None:
    """What the engine that was killed had in its hands is nobody's else until its lease is over."""
    async with asyncio.timeout(PATIENCE):
        while not (cleared := (await clear(engine, one))[0]).cleared:
            assert cleared.problem.startswith("another engine works on"), cleared
            await asyncio.sleep(0.2)


async def test_one_of_two_drives_the_root_and_the_other_takes_over(first: Site, postgres_url: str) -> None:
    a = await start_engine(first)
    await _until_driving(a)
    async with replica_of(first, postgres_url) as second, running_engine(second) as b:
        idle = await b.staged()
        assert not idle.driving
        assert "another program drives" in idle.problem
        pushed = push(first)
        await proven(a, pushed)
        assert (await until_state(b, pushed.run, VERIFIED)).run == pushed.run
        asked = b.staging.ClearStagedRuns(pb.ClearStagedRunsRequest(runs=[pushed.run], reason="the disk is full"))
        assert (await refused(asked))[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "STAGING_NOT_DRIVEN")

        arriving = push(first, leaf="Run_2026-04-17T15-00")
        await a.kill()
        await _until_driving(b)
        await proven(b, arriving)
        for one in (pushed, arriving):
            same_tree(one.folder, first.at_nas(one.run))
            await _until_cleared(b, one)
            await until_state(b, one.run, CLEARED)
            await one.until_mirrored("cleared")
            assert one.states_in_file() == IN_ORDER
            steps = Counter(t for t in await b.event_types(f"staged-{one.run}") if "held" not in t)
            assert set(steps.values()) == {1}
            assert len(steps) == len(IN_ORDER)
