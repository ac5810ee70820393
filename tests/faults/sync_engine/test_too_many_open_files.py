"""An engine that may open no further file fails no job for it: it is tried again."""

from __future__ import annotations

import asyncio
import os
import resource

from labferry.sync.v1 import job_pb2
from tests.integration.sync_engine.running_engine import Site, running_engine

FEW = 20


async def test_a_job_waits_while_no_file_can_be_opened(site: Site) -> None:
    async with running_engine(site) as engine:
        await engine.bring(site.make_run())
        run = site.make_run({f"{n:03}.tif": b"pixels %d" % n for n in range(200)}, leaf="Run_2026-04-18T14-32")
        pid = engine.service.process.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        in_use = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (in_use + FEW, hard))
        job_id = (await engine.enqueue(run)).job.job_id
        async with asyncio.timeout(30):
            while not (job := await engine.job(job_id)).waiting_on:
                await asyncio.sleep(0.02)
        assert job.state == job_pb2.JOB_STATE_QUEUED
        assert job.waiting_on[0].HasField("next_try_time"), "it is tried again by itself"
        assert "Too many open files" in job.waiting_on[0].detail
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
