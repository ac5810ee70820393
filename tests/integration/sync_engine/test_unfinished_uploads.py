"""Parts of large files in a bucket: what a stop in the middle leaves of an upload doesn't stay."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from labferry.sync.v1 import job_pb2
from tests.integration.sync_engine.running_engine import new_site, running_engine
from tests.integration.transfer.unfinished_uploads import BUCKET, PART, serving_bucket

SOMEBODYS = "of/CONFOCAL_01/somebody's"


async def test_a_stop_in_the_middle_leaves_no_parts(tmp_path: Path) -> None:
    with serving_bucket(tmp_path) as bucket:
        bucket.begin([SOMEBODYS])
        async with new_site() as site:
            transport = {
                "type": "rclone",
                "rclone_remote": "far",
                "rclone_remote_path": f"{BUCKET}/of/CONFOCAL_01",
                "rclone_config": str(bucket.config),
                "bandwidth": {"upload_mbps": 64},
            }
            site.equip(destinations=[{"name": "far", "transport": transport}])
            run = site.make_run({"large": os.urandom(4 * PART)})
            other = site.make_run({"large": os.urandom(4 * PART)}, leaf="Run_2026-04-18T09-00")

            async def until_begun(job_id: str, attempt: int) -> None:
                begun = {f"of/CONFOCAL_01/.labferry-incoming/{job_id}-{attempt}/0/large"}
                await asyncio.to_thread(bucket.until, begun)

            async with running_engine(site) as engine:
                held = (await engine.enqueue(run)).job.job_id
                await until_begun(held, 1)
                await engine.steer("PauseJob", held)
                cancelled = (await engine.enqueue(other)).job.job_id
                await until_begun(cancelled, 1)
                await engine.steer("CancelJob", cancelled)
                await engine.until_event(f"job-{cancelled}", "sync.job.swept.v1")
                assert all(cancelled not in key for key in bucket.unfinished())
                await engine.steer("ResumeJob", held)
                await until_begun(held, 2)
                await engine.kill()
            async with running_engine(site) as engine:
                await engine.until_sealed(held)
                assert (await engine.job(held)).state == job_pb2.JOB_STATE_VERIFIED
                assert bucket.unfinished() == {SOMEBODYS}
