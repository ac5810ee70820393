"""A storage behind SFTP that is full, in a real engine: its jobs wait, and go on when there is room."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from labferry.sync.v1 import job_pb2
from tests.faults.sync_engine import impatient_engine
from tests.integration.sync_engine.running_engine import Site, new_site, start_engine
from tests.integration.transfer.sftp_of_a_user import small_sftp


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with new_site() as site:
        yield site


async def test_a_job_waits_for_room_and_goes_on_by_itself(site: Site) -> None:
    run = site.make_run({"notes.txt": b"abc"})
    with small_sftp() as server:
        config = site.lab.folder / "rclone.conf"
        config.write_text(server.configuration())
        remote = {"rclone_remote": "far", "rclone_remote_path": str(server.folder), "rclone_config": str(config)}
        site.equip(destinations=[{"name": "far", "transport": {"type": "rclone", **remote}}])
        (server.folder / ".labferry-incoming").mkdir()
        (server.folder / ".labferry-incoming").chmod(0o777)
        server.fill(blocks_left=2)
        engine = await start_engine(site, module=impatient_engine.__name__)
        job_id = (await engine.enqueue(run)).job.job_id
        job = await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_DESTINATION_FULL)
        assert job.state == job_pb2.JOB_STATE_QUEUED
        assert job.waiting_on[0].who_can_clear == "it"
        assert "counts as free what is kept for root" in job.waiting_on[0].detail
        server.make_room()
        await engine.until_sealed(job_id)
        assert await engine.service.stop() == 0
