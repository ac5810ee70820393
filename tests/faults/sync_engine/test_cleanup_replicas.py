"""Several engines on one PostgreSQL, each with its reaper on: one at a time cleans a run, whatever becomes of it."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from labferry.events.v1 import run_events_pb2
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
from tests.integration.sync_engine.test_cleanup import data_files, files_not_deleted

FILES = 2000
_LEASES_HELD = "SELECT count(*) FROM sync_engine.leases WHERE expires > clock_timestamp()"
ENDED = "sync.run.cleanup_ended.v1"


@pytest.fixture
async def first(postgres_url: str) -> AsyncIterator[Site]:
    async with new_site() as site:
        site.equip(max_parallel=3)
        site.lab.settings["transfer"] = LEASE
        site.lab.settings["event_log"] = {"url": postgres_url, "blob_folder": str(site.lab.folder / "blobs")}
        site.lab.settings["nas_cleanup"] = {"enabled": True, "min_verify_passes": 1, "min_age_hours": 0}
        yield site


def large_run(site: Site) -> str:
    return site.make_run({f"{number:05}.bin": b"%d" % number for number in range(FILES)}, leaf="Run_2026-04-17T20-00")


async def until_deleting(site: Site, run: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while (site.local(run) / "00000.bin").exists():
            await asyncio.sleep(0.001)


async def ends(engine: Engine, run: str, *, until_cleaned: bool) -> list[run_events_pb2.RunCleanupEnded]:
    """How the run's cleanups ended so far, once the last one did."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = []
            for event in await engine.events():
                if event.stream == f"run-{run}" and event.type == ENDED:
                    found.append(run_events_pb2.RunCleanupEnded())
                    assert event.payload.Unpack(found[-1])
            if found and (found[-1].cleaned or not until_cleaned):
                return found
            await asyncio.sleep(0.1)


async def until_frozen(engine: Engine) -> None:
    """Not a thread of it runs any more."""
    engine.service.process.send_signal(signal.SIGSTOP)
    tasks = Path(f"/proc/{engine.service.process.pid}/task")
    async with asyncio.timeout(PATIENCE):
        while any((task / "stat").read_text().rpartition(")")[2].split()[0] != "T" for task in tasks.iterdir()):
            await asyncio.sleep(0.001)


async def until_leases_ended(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(PATIENCE):
            while await connection.fetchval(
                "SELECT count(*) FROM sync_engine.leases WHERE expires > clock_timestamp()"
            ):
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


@pytest.mark.slow
async def test_each_run_is_cleaned_once_and_what_a_killed_engine_left_another_finishes(
    first: Site, postgres_url: str
) -> None:
    a = await start_engine(first)
    async with replica_of(first, postgres_url) as second, running_engine(second) as b:
        runs = [first.make_run(leaf=f"Run_2026-04-17T14-{n:02}") for n in range(3)]
        for run, engine in zip(runs, [a, b, a], strict=True):
            await engine.enqueue(run)
        for run in runs:
            (ended,) = await ends(b, run, until_cleaned=True)
            assert (ended.file_count, ended.interrupted) == (2, False)
            assert len(data_files(first.at_nas(run))) == 2
        begun = Counter(e.stream for e in await b.events() if e.type == "sync.run.cleanup_begun.v1")
        assert begun == {f"run-{run}": 1 for run in runs}

        b.service.process.send_signal(signal.SIGSTOP)
        run = large_run(first)
        await a.enqueue(run)
        await until_deleting(first, run)
        await a.kill()
        left = files_not_deleted(first.local(run))
        assert left, "the kill came too late to prove anything"
        b.service.process.send_signal(signal.SIGCONT)
        cut_off, finished = await ends(b, run, until_cleaned=True)
        assert (cut_off.interrupted, cut_off.cleaned, cut_off.gone_count) == (True, False, FILES - len(left))
        assert (finished.interrupted, finished.cleaned, finished.file_count) == (False, True, len(left))
        assert data_files(first.local(run)) == set()
        assert len(data_files(first.at_nas(run))) == FILES


@pytest.mark.slow
async def test_a_frozen_engine_deletes_nothing_more_once_its_lease_may_be_anothers(
    first: Site, postgres_url: str
) -> None:
    async with running_engine(first) as engine:
        run, copy = large_run(first), first.lab.folder / "copy"
        shutil.copytree(first.local(run), copy)
        await engine.enqueue(run)
        await until_deleting(first, run)
        await until_frozen(engine)
        left = files_not_deleted(first.local(run))
        assert left, "it was frozen too late to prove anything"
        await until_leases_ended(postgres_url)
        engine.service.process.send_signal(signal.SIGCONT)
        ended, *_ = await ends(engine, run, until_cleaned=False)
        # Nobody else had the run meanwhile, so this engine still knows what it did itself.
        assert not ended.interrupted
        # The file in hand may have been looked at for the last time before.
        assert FILES - len(left) <= ended.file_count <= FILES - len(left) + 1
        same_tree(copy, first.at_nas(run))
