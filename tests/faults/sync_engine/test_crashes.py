"""SIGKILL at random instants: every job goes on to the right end, nothing is lost, damaged or done twice."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from labferry.events.v1 import event_log_service_pb2
from labferry.sync.v1 import finding_pb2, job_pb2, run_service_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import (
    QUEUED,
    Engine,
    Site,
    new_site,
    running_engine,
    same_tree,
    sha256sum_agrees,
    start_engine,
)

ROUNDS = 12


def _files(seed: int) -> dict[str | bytes, bytes]:
    content = random.Random(seed)
    small = {f"small/{n:03}.tif": content.randbytes(content.randrange(1, 40_000)) for n in range(150)}
    large = {f"large {n}.h5": content.randbytes(3_000_000) for n in range(8)}
    return {**small, **large, "notes {{ x }}.txt": b"left over"}


def _no_damaged_file(site: Site, run: str, files: dict[str | bytes, bytes]) -> None:
    """Whatever lies under its final name is whole, at any instant."""
    copy = site.at_nas(run)
    for name, content in files.items():
        path = copy / os.fsdecode(name)
        if path.exists():
            assert path.read_bytes() == content, path


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_killed_again_and_again_every_job_ends_right() -> None:
    chance = random.Random(20260417)
    async with new_site() as site:
        site.equip(transport={"bandwidth": {"upload_mbps": 160}})
        files = _files(1)
        runs = [site.make_run(files, leaf=f"Run_2026-04-17T1{n}-00") for n in range(3)]
        queued: set[str] = set()
        for _ in range(ROUNDS):
            engine = await start_engine(site)
            doing = asyncio.create_task(_press_on(engine, runs, queued))
            # The instant of the kill is what the test varies: there is no event to wait for.
            await asyncio.wait([doing], timeout=chance.uniform(0.0, 1.2))
            await engine.kill()
            doing.cancel()
            await asyncio.wait([doing])
            for run in runs:
                _no_damaged_file(site, run, files)
        async with running_engine(site) as engine:
            for run in runs:
                if not (await engine.run(run)).jobs:
                    await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
                    assert (await engine.enqueue(run)).outcome == QUEUED
                (job,) = (await engine.run(run)).jobs
                await engine.until_sealed(job.job_id)
                same_tree(site.local(run), site.at_nas(run))
                assert sha256sum_agrees(site.at_nas(run)) == len(files)
                assert site.creation(run)["sync_status"] == "synced"
                in_file = [e["id"] for e in site.creation(run)["validation_overrides"]]
                assert in_file == [o.id for o in await engine.overrides(run)]
                types = await engine.event_types(f"job-{job.job_id}")
                assert types.count("sync.job.queued.v1") == 1
                assert types.count("sync.job.sealed.v1") == 1
            assert not list((site.nas() / ".labferry-incoming").iterdir())
            verified = await engine.log.VerifyLog(event_log_service_pb2.VerifyLogRequest())
            assert verified.intact
            rebuilt = await engine.log.RebuildProjections(event_log_service_pb2.RebuildProjectionsRequest(dry_run=True))
            assert not any(p.differences for p in rebuilt.projections)


async def _press_on(engine: Engine, runs: list[str], queued: set[str]) -> None:
    """An operator who overrides and queues, as far as the engine lives."""
    for run in runs:
        overrides = await engine.overrides(run)
        if not overrides:
            await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
        await engine.enqueue(run)
        queued.add(run)


async def test_what_has_landed_is_not_sent_again_after_a_kill() -> None:
    async with new_site() as site:
        site.equip(transport={"bandwidth": {"upload_mbps": 320}})
        run = site.make_run({f"{n:02}.h5": os.urandom(5_000_000) for n in range(24)})
        engine = await start_engine(site)
        job_id = (await engine.enqueue(run)).job.job_id
        # Each large file lands by itself, and its event comes before it.
        await engine.until(job_id, lambda u: u.job.revision >= 4)
        await engine.kill()
        landed = {p.name: p.stat().st_ino for p in site.at_nas(run).glob("*.h5")}
        assert landed
        assert len(landed) < 24
        async with running_engine(site) as engine:
            job = await engine.until_sealed(job_id)
            assert job.attempt == 2
            for name, inode in landed.items():
                assert (site.at_nas(run) / name).stat().st_ino == inode
            same_tree(site.local(run), site.at_nas(run))
            assert "sync.job.requeued.v1" in await engine.event_types(f"job-{job_id}")


async def test_sigterm_in_the_middle_ends_soon_and_the_next_engine_goes_on() -> None:
    async with new_site() as site:
        site.equip(transport={"bandwidth": {"upload_mbps": 80}})
        run = site.make_run({f"{n:02}.h5": os.urandom(2_000_000) for n in range(20)})
        engine = await start_engine(site)
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until(job_id, lambda u: u.progress.bytes_done > 0)
        assert await engine.service.stop() == 0
        async with running_engine(site) as engine:
            shown = await engine.job(job_id)
            assert shown.state in (job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING)
            await engine.until_sealed(job_id)
            same_tree(site.local(run), site.at_nas(run))


async def test_deleted_read_models_are_rebuilt_the_same() -> None:
    async with new_site() as site:
        site.equip()
        run = site.make_run()
        async with running_engine(site) as engine:
            await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
            await engine.bring(run)
            before = await _told(engine, run)
        for path in (site.lab.state_dir / "sync_engine").glob("read_models.sqlite3*"):
            path.unlink()
        async with running_engine(site) as engine:
            assert await _told(engine, run) == before


async def _told(engine: Engine, run: str) -> list[object]:
    jobs = await engine.sync.ListJobs(sync_service_pb2.ListJobsRequest())
    shown = await engine.runs.GetRun(run_service_pb2.GetRunRequest(run=run))
    return [jobs, shown, await engine.overrides(run)]
