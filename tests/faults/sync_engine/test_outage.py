"""A NAS that is down for a while, with many jobs: nothing fails, no attempt is burned, and all go on after it."""

from __future__ import annotations

from labferry.sync.v1 import job_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import Site, running_engine, same_tree

RUNS = 25
UNREACHABLE = job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE


async def test_an_outage_with_many_jobs_fails_nothing_even_across_a_restart(site: Site) -> None:
    site.equip("SCOPE_02")
    runs = [site.make_run({"a.tif": b"1"}, leaf=f"Run_2026-04-17T10-{n:02}") for n in range(RUNS)]
    aside = site.nas().with_name("away")
    async with running_engine(site) as engine:
        site.nas().rename(aside)
        answers = engine.sync.EnqueueRuns(sync_service_pb2.EnqueueRunsRequest(runs=runs))
        ids = [answer.job.job_id async for answer in answers]
        waiting = [await engine.until_waiting(job_id, UNREACHABLE) for job_id in ids]
        assert {job.attempt for job in waiting} == {0}
        assert {job.state for job in waiting} == {job_pb2.JOB_STATE_QUEUED}
        # Another instrument's NAS is up, and its runs are brought there meanwhile.
        await engine.bring(site.make_run(equipment="SCOPE_02"))
        listed = await engine.sync.ListJobs(sync_service_pb2.ListJobsRequest(equipment_id="CONFOCAL_01"))
        probes = {job.waiting_on[0].next_try_time.ToMicroseconds() for job in listed.jobs}
        assert len(probes) == 1, "one probe for all of them"
    async with running_engine(site) as engine:
        for job_id in ids:
            await engine.until_waiting(job_id, UNREACHABLE)
        aside.rename(site.nas())
        for run, job_id in zip(runs, ids, strict=True):
            job = await engine.until_sealed(job_id)
            assert job.attempt == 1
            same_tree(site.local(run), site.at_nas(run))
        types = [e.type for e in await engine.events()]
        assert "sync.job.failed.v1" not in types
        assert "sync.job.attempt_failed.v1" not in types
        assert types.count("sync.job.waiting.v1") == RUNS, "the log tells each wait once, however long it lasts"
