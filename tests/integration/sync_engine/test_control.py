"""Pause, resume, cancel, priority: by one job, a run, an equipment or all, each with reason and actor in the log."""

from __future__ import annotations

import os

import grpc
import pytest

from labferry.sync.v1 import job_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import (
    QUEUED,
    Engine,
    Site,
    running_engine,
    same_tree,
    sha256sum_agrees,
)
from tests.integration.sync_engine.test_bad_input import PRECONDITION, refused

SLOW = {"bandwidth": {"upload_mbps": 16}}
"""2 MiB a second: a transfer that lasts long enough to be stopped in the middle."""


@pytest.fixture
def slow_site(site: Site) -> Site:
    site.lab.settings["equipment"].clear()
    site.equip(transport=SLOW)
    return site


def _big_run(site: Site, leaf: str = "Run_2026-04-17T14-32") -> str:
    return site.make_run({f"{n:02}.tif": os.urandom(400_000) for n in range(10)}, leaf=leaf)


async def test_a_running_job_is_paused_at_once_and_resumes_without_sending_again_what_landed(slow_site: Site) -> None:
    site = slow_site
    run = site.make_run({f"{n:03}.tif": os.urandom(20_000) for n in range(600)})
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id

        def landed(update: sync_service_pb2.JobUpdate) -> bool:
            return site.at_nas(run).is_dir() and len(list(site.at_nas(run).iterdir())) > 200

        await engine.until(job_id, landed)
        paused = await engine.steer("PauseJob", job_id)
        assert paused.state == job_pb2.JOB_STATE_PAUSED
        assert [w.condition for w in paused.waiting_on] == [job_pb2.WAIT_CONDITION_OPERATOR]
        assert paused.waiting_on[0].who_can_clear == "operator"
    async with running_engine(site) as engine:
        assert (await engine.job(job_id)).state == job_pb2.JOB_STATE_PAUSED
        arrived = {p.name: p.stat().st_ino for p in site.at_nas(run).glob("*.tif")}
        assert 200 < len(arrived) < 600
        resumed = await engine.steer("ResumeJob", job_id)
        assert resumed.state == job_pb2.JOB_STATE_QUEUED
        await engine.until_sealed(job_id)
        same_tree(site.local(run), site.at_nas(run))
        for name, inode in arrived.items():
            assert (site.at_nas(run) / name).stat().st_ino == inode
        recorded = {e.type: e for e in await engine.events() if e.stream == f"job-{job_id}"}
        for name in ("sync.job.paused.v1", "sync.job.resumed.v1"):
            assert (recorded[name].actor, recorded[name].reason) == ("operator-1", "because")


async def test_a_queued_job_is_paused_and_others_overtake_it(slow_site: Site) -> None:
    async with running_engine(slow_site) as engine:
        first = (await engine.enqueue(_big_run(slow_site, "Run_2026-04-17T14-30"))).job.job_id
        held = (await engine.enqueue(slow_site.make_run(leaf="Run_2026-04-17T14-31"))).job.job_id
        last = (await engine.enqueue(slow_site.make_run(leaf="Run_2026-04-17T14-32"))).job.job_id
        await engine.steer("PauseJob", held)
        await engine.until_sealed(first)
        await engine.until_sealed(last)
        assert (await engine.job(held)).attempt == 0
        await engine.steer("ResumeJob", held)
        await engine.until_sealed(held)


async def test_a_cancelled_job_leaves_no_temporary_name_and_the_source_as_it_was(slow_site: Site) -> None:
    run = _big_run(slow_site)
    before = sorted((p.name, p.read_bytes()) for p in slow_site.local(run).glob("*.tif"))
    async with running_engine(slow_site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_copying(job_id)
        cancelled = await engine.steer("CancelJob", job_id)
        assert cancelled.state == job_pb2.JOB_STATE_CANCELLED
        await engine.until_event(f"job-{job_id}", "sync.job.swept.v1")
        assert list((slow_site.nas() / ".labferry-incoming").iterdir()) == []
        assert sorted((p.name, p.read_bytes()) for p in slow_site.local(run).glob("*.tif")) == before
        await slow_site.until_sync_status(run, "pending")
        again = await engine.enqueue(run)
        assert again.outcome == QUEUED
        assert again.job.job_id != job_id
        await engine.until_sealed(again.job.job_id)
        assert sha256sum_agrees(slow_site.at_nas(run)) == 10


async def test_what_a_killed_engine_left_of_a_cancelled_job_is_swept_by_the_next(slow_site: Site) -> None:
    run = _big_run(slow_site)
    async with running_engine(slow_site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_copying(job_id)
        await engine.kill()
    assert list((slow_site.nas() / ".labferry-incoming").iterdir()) != []
    aside = slow_site.nas().with_name("away")
    slow_site.nas().rename(aside)
    async with running_engine(slow_site) as engine:
        await engine.steer("CancelJob", job_id)
    aside.rename(slow_site.nas())
    async with running_engine(slow_site) as engine:
        await engine.until_event(f"job-{job_id}", "sync.job.swept.v1")
        assert list((slow_site.nas() / ".labferry-incoming").iterdir()) == []


async def test_the_higher_priority_goes_first_and_a_running_job_is_not_disturbed(slow_site: Site) -> None:
    async with running_engine(slow_site) as engine:
        first = (await engine.enqueue(_big_run(slow_site, "Run_2026-04-17T14-30"))).job.job_id
        older = (await engine.enqueue(slow_site.make_run(leaf="Run_2026-04-17T14-31"))).job.job_id
        newer = (await engine.enqueue(slow_site.make_run(leaf="Run_2026-04-17T14-32"))).job.job_id
        await engine.until_copying(first)
        assert (await engine.steer("SetJobPriority", first, priority=3)).priority == 3
        assert (await engine.steer("SetJobPriority", newer, priority=2)).priority == 2
        for job_id in (first, newer, older):
            assert (await engine.until_sealed(job_id)).attempt == 1
        started = [e.stream for e in await engine.events() if e.type == "sync.job.started.v1"]
        assert started == [f"job-{j}" for j in (first, newer, older)]


async def test_the_same_command_for_a_run_an_equipment_and_everything(site: Site) -> None:
    site.lab.settings["equipment"].clear()
    destinations = [
        {"name": n, "transport": {"type": "mounted", "path": str(site.nas(destination=n)), **SLOW}} for n in "ab"
    ]
    site.equip(destinations=destinations)
    site.equip("SCOPE_02", transport=SLOW)
    for name in "ab":
        site.nas(destination=name).mkdir(parents=True)
    async with running_engine(site) as engine:
        runs = [_big_run(site, f"Run_2026-04-17T14-3{n}") for n in range(2)]
        jobs = [[j.job_id for j in (await engine.enqueue(run)).jobs] for run in runs]
        other = (await engine.enqueue(site.make_run(equipment="SCOPE_02"))).job.job_id
        await engine.until_sealed(other)
        pause, resume = sync_service_pb2.JOB_COMMAND_PAUSE, sync_service_pb2.JOB_COMMAND_RESUME
        assert await engine.steer_all(pause, run=runs[1]) == sorted(jobs[1])
        assert await engine.steer_all(pause, run=runs[1]) == []
        assert await engine.steer_all(pause, equipment_id="CONFOCAL_01") == sorted(jobs[0])
        assert await engine.steer_all(resume, all=True) == sorted([*jobs[0], *jobs[1]])
        cancel = sync_service_pb2.JOB_COMMAND_CANCEL
        assert await engine.steer_all(cancel, all=True) == sorted([*jobs[0], *jobs[1]])
        assert (await engine.job(other)).sealed


@pytest.mark.parametrize("method", ["PauseJob", "ResumeJob", "CancelJob", "RetryJob"])
async def test_what_a_verified_jobs_state_does_not_allow_is_refused_by_name(engine: Engine, method: str) -> None:
    job = await engine.bring(engine.site.make_run())
    code, reason, metadata = await refused(engine.steer(method, job.job_id))
    assert (code, reason) == (PRECONDITION, "JOB_STATE")
    assert metadata["state"] == "verified"
    assert metadata["command"] == method.removesuffix("Job").lower()


async def test_commands_need_a_reason_and_sense(engine: Engine) -> None:
    job = await engine.bring(engine.site.make_run())
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    no_reason = engine.sync.PauseJob(sync_service_pb2.PauseJobRequest(job_id=job.job_id))
    assert (await refused(no_reason))[0] is invalid
    assert (await refused(engine.steer("SetJobPriority", job.job_id, priority=1001)))[0] is invalid
    assert (await refused(engine.steer("PauseJob", "no uuid")))[0] is invalid
    unscoped = sync_service_pb2.SteerJobsRequest(command=sync_service_pb2.JOB_COMMAND_PAUSE, reason="r")
    assert (await refused(engine.sync.SteerJobs(unscoped)))[0] is invalid
    uncommanded = sync_service_pb2.SteerJobsRequest(all=True, reason="r")
    assert (await refused(engine.sync.SteerJobs(uncommanded)))[0] is invalid
    nowhere = sync_service_pb2.SteerJobsRequest(
        command=sync_service_pb2.JOB_COMMAND_PAUSE, reason="r", run=f"{job.run}9"
    )
    assert (await refused(engine.sync.SteerJobs(nowhere)))[1] == "RUN_NOT_FOUND"
    nobody = sync_service_pb2.SteerJobsRequest(
        command=sync_service_pb2.JOB_COMMAND_PAUSE, reason="r", equipment_id="CONFOCAL_1"
    )
    assert (await refused(engine.sync.SteerJobs(nobody)))[1] == "EQUIPMENT_NOT_CONFIGURED"
    unknown = engine.steer("PauseJob", "01a1f8ec-3d0f-7653-b5fa-92f15999e715")
    assert (await refused(unknown))[:2] == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
