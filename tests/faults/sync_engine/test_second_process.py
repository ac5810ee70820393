"""The engine's second process for small files dies or hangs: no run suffers, and nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.sync_engine.running_engine import (
    Engine,
    new_site,
    running_engine,
    same_tree,
    sha256sum_agrees,
    start_engine,
)

FILES = {f"position{number % 9}/{number:05}.tif": os.urandom(3000) for number in range(2000)}
LEAVES = tuple(f"Run_2026-04-17T14-3{number}" for number in range(3))
PATIENCE = 60


def second_processes(engine: Engine) -> list[int]:
    """Its children that are one, by number."""
    found = []
    for task in Path(f"/proc/{engine.service.process.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            # What ended meanwhile wasn't one.
            with suppress(FileNotFoundError):
                if b"second_process" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


async def until_gone(process: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while Path(f"/proc/{process}").exists():
            await asyncio.sleep(0.02)


async def brought(engine: Engine, run: str) -> None:
    """As `sha256sum` and a walk see it."""
    job = await engine.bring(run)
    assert job.sealed
    same_tree(engine.site.local(run), engine.site.at_nas(run))
    assert sha256sum_agrees(engine.site.at_nas(run)) == len(FILES)


@pytest.mark.parametrize("way", ["kill -9", "SIGTERM"])
async def test_it_comes_with_the_first_large_run_and_ends_with_the_engine(way: str) -> None:
    async with new_site() as site:
        site.equip()
        small = site.make_run({"a.tif": b"a"}, leaf=LEAVES[0])
        large = site.make_run(FILES, leaf=LEAVES[1])
        engine = await start_engine(site)
        await engine.bring(small)
        assert second_processes(engine) == []
        await brought(engine, large)
        [second] = second_processes(engine)
        if way == "kill -9":
            await engine.kill()
        else:
            assert await engine.service.stop() == 0
        await until_gone(second)


async def test_a_run_arrives_though_it_is_killed_on_the_way() -> None:
    async with new_site() as site:
        site.equip()
        first, run, last = (site.make_run(FILES, leaf=leaf) for leaf in LEAVES)
        async with running_engine(site) as engine:
            await brought(engine, first)
            [second] = second_processes(engine)
            job_id = (await engine.enqueue(run)).job.job_id
            await engine.until_copying(job_id)
            os.kill(second, signal.SIGKILL)
            await engine.until_sealed(job_id)
            same_tree(site.local(run), site.at_nas(run))
            await brought(engine, last)


async def test_a_job_is_paused_and_goes_on_though_it_hangs() -> None:
    async with new_site() as site:
        site.equip()
        first, run = site.make_run(FILES, leaf=LEAVES[0]), site.make_run(FILES, leaf=LEAVES[1])
        async with running_engine(site) as engine:
            await brought(engine, first)
            [second] = second_processes(engine)
            os.kill(second, signal.SIGSTOP)
            job_id = (await engine.enqueue(run)).job.job_id
            await engine.until_copying(job_id)
            await engine.steer("PauseJob", job_id)
            await until_gone(second)
            await engine.steer("ResumeJob", job_id)
            await engine.until_sealed(job_id)
            same_tree(site.local(run), site.at_nas(run))
