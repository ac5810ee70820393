"""Several engines on one PostgreSQL: each job is one engine's at a time, and another finishes what a lost one began."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from labferry.events.v1 import event_pb2, job_events_pb2
from labferry.sync.v1 import job_pb2
from tests.faults.event_log.database_proxy import running_proxy
from tests.integration.event_log.postgres_cluster import PostgresCluster
from tests.integration.secrets.running_service import new_lab
from tests.integration.sync_engine.running_engine import (
    Engine,
    Site,
    new_site,
    running_engine,
    same_tree,
    sha256sum_agrees,
    start_engine,
)

LEASE = {"lease_seconds": 2.0, "stall_timeout": 60}


@asynccontextmanager
async def replica_of(site: Site, url: str, **settings: Any) -> AsyncIterator[Site]:
    """Another machine with a state of its own, the same equipment and the same log."""
    async with new_lab() as lab:
        lab.settings.update({**site.lab.settings, "listen": lab.settings["listen"], "state_dir": str(lab.state_dir)})
        lab.settings.update({"event_log": {**site.lab.settings["event_log"], "url": url}, **settings})
        yield Site(lab, site.lab.folder)


@pytest.fixture
async def first(postgres_url: str) -> AsyncIterator[Site]:
    async with new_site() as site:
        site.equip(transport={"bandwidth": {"upload_mbps": 16}})
        site.lab.settings["transfer"] = LEASE
        site.lab.settings["event_log"] = {"url": postgres_url, "blob_folder": str(site.lab.folder / "blobs")}
        yield site


def _big_run(site: Site, leaf: str = "Run_2026-04-17T14-32") -> str:
    return site.make_run({f"{n:02}.tif": os.urandom(300_000) for n in range(16)}, leaf=leaf)


def _started(events: list[event_pb2.Event]) -> list[job_events_pb2.JobStarted]:
    found = []
    for event in events:
        if event.type == "sync.job.started.v1":
            started = job_events_pb2.JobStarted()
            event.payload.Unpack(started)
            found.append(started)
    return found


async def _one_right_end(engine: Engine, run: str, job_id: str, files: int) -> None:
    """Sealed once, whole at the NAS, and a log without contradictions."""
    await engine.until_sealed(job_id)
    same_tree(engine.site.local(run), engine.site.at_nas(run))
    assert sha256sum_agrees(engine.site.at_nas(run)) == files
    types = Counter(await engine.event_types(f"job-{job_id}"))
    assert types["sync.job.copied.v1"] == types["sync.job.sealed.v1"] == 1
    assert list((engine.site.nas() / ".labferry-incoming").iterdir()) == []


async def _a_line_an_event(site: Site, engine: Engine, run: str, job_id: str) -> None:
    """Both engines write to the run's own log, and each event is told once."""
    (log,) = (site.local(run) / ".exlab-wizard").glob("wizard.*.log")
    streams = {f"run-{run}", f"job-{job_id}"}
    async with asyncio.timeout(60):
        while True:
            told = len(log.read_text(encoding="utf-8").splitlines())
            recorded = len([e for e in await engine.events() if e.stream in streams])
            assert told <= recorded
            if told == recorded:
                return
            await asyncio.sleep(0.05)


async def test_two_engines_share_the_work_and_no_job_is_begun_twice(first: Site, postgres_url: str) -> None:
    first.lab.settings["equipment"][0]["max_parallel"] = 2
    async with replica_of(first, postgres_url) as second, running_engine(first) as a, running_engine(second) as b:
        runs = [first.make_run(leaf=f"Run_2026-04-17T14-{n:02}") for n in range(10)]
        jobs = [(await engine.enqueue(run)).job.job_id for run, engine in zip(runs, [a, b] * 5, strict=True)]
        for run, job_id in zip(runs, jobs, strict=True):
            await a.until_sealed(job_id)
            same_tree(first.local(run), first.at_nas(run))
        events = await a.events()
        assert len(_started(events)) == 10
        for run, job_id in zip(runs, jobs, strict=True):
            await _a_line_an_event(first, a, run, job_id)
        in_work: set[str] = set()
        for event in events:
            if event.type == "sync.job.started.v1":
                in_work.add(event.stream)
                assert len(in_work) <= 2, "an equipment's slots are the same for all engines"
            elif event.type == "sync.job.copied.v1":
                in_work.discard(event.stream)


async def _begin_at(a: Engine, b: Engine, run: str) -> str:
    """Queues a run and has the first engine begin it: the other one can't, for it is frozen, until it is thawed."""
    b.service.process.send_signal(signal.SIGSTOP)
    job_id = (await a.enqueue(run)).job.job_id
    await a.until_copying(job_id)
    return job_id


async def test_what_a_killed_engine_had_in_work_another_finishes(first: Site, postgres_url: str) -> None:
    run = _big_run(first)
    a = await start_engine(first)
    async with replica_of(first, postgres_url) as second, running_engine(second) as b:
        job_id = await _begin_at(a, b, run)
        await a.kill()
        b.service.process.send_signal(signal.SIGCONT)
        assert (await b.job(job_id)).state == job_pb2.JOB_STATE_RUNNING
        await _one_right_end(b, run, job_id, 16)
        assert len({s.engine_id for s in _started(await b.events())}) == 2
        assert [e.type for e in await b.events()].count("sync.job.requeued.v1") == 1


async def test_an_engine_that_was_frozen_can_record_nothing_more_of_a_job_that_it_lost(
    first: Site, postgres_url: str
) -> None:
    run = _big_run(first)
    async with (
        replica_of(first, postgres_url) as second,
        running_engine(first) as a,
        running_engine(second) as b,
    ):
        job_id = await _begin_at(a, b, run)
        a.service.process.send_signal(signal.SIGSTOP)
        b.service.process.send_signal(signal.SIGCONT)
        try:
            await b.until(job_id, lambda u: u.job.attempt == 2)
        finally:
            a.service.process.send_signal(signal.SIGCONT)
        await _one_right_end(b, run, job_id, 16)
        frozen, taker = (s.engine_id for s in _started(await b.events()))
        assert frozen != taker
        for engine, leaf in ((a, "Run_2026-04-17T16-00"), (b, "Run_2026-04-17T17-00")):
            later = (await engine.enqueue(first.make_run(leaf=leaf))).job.job_id
            await a.until_sealed(later)


async def test_an_engine_cut_off_from_the_log_ends_its_work_and_another_takes_over(
    first: Site, postgres_cluster: PostgresCluster, postgres_url: str
) -> None:
    run = _big_run(first)
    async with running_proxy(postgres_cluster) as proxy:
        first.lab.settings["event_log"]["url"] = proxy.url(postgres_url)
        async with (
            replica_of(first, postgres_url) as second,
            running_engine(first) as a,
            running_engine(second) as b,
        ):
            job_id = await _begin_at(a, b, run)
            await proxy.shut()
            b.service.process.send_signal(signal.SIGCONT)
            await b.until(job_id, lambda u: u.job.attempt == 2)
            assert "lease_lost" in first.lab.log_text("sync_engine")
            await proxy.open()
            await _one_right_end(b, run, job_id, 16)


async def test_an_engine_goes_on_with_a_job_whose_lease_it_lost_where_no_other_takes_it(
    first: Site, postgres_url: str
) -> None:
    run = _big_run(first)
    database = await asyncpg.connect(postgres_url)
    async with running_engine(first) as a:
        job_id = (await a.enqueue(run)).job.job_id
        await a.until_copying(job_id)
        a.service.process.send_signal(signal.SIGSTOP)
        try:
            live = "SELECT count(*) FROM sync_engine.leases WHERE expires > clock_timestamp() AND name = $1"
            while await database.fetchval(live, f"job-{job_id}"):
                await asyncio.sleep(0.05)
        finally:
            a.service.process.send_signal(signal.SIGCONT)
            await database.close()
        await _one_right_end(a, run, job_id, 16)
        assert "lease_lost" in first.lab.log_text("sync_engine")


async def test_an_engine_takes_only_jobs_of_its_own_equipment(first: Site, postgres_url: str) -> None:
    first.equip("SCOPE_02")
    async with (
        replica_of(first, postgres_url, equipment=[first.lab.settings["equipment"][1]]) as second,
        running_engine(second) as b,
    ):
        async with running_engine(first) as a:
            run = _big_run(first)
            job_id = (await a.enqueue(run)).job.job_id
            await a.until_copying(job_id)
        job = await b.until_waiting(job_id, job_pb2.WAIT_CONDITION_EQUIPMENT_NOT_CONFIGURED)
        assert job.state == job_pb2.JOB_STATE_QUEUED
        await b.bring(first.make_run(equipment="SCOPE_02"))
        assert len(_started(await b.events())) == 2
