"""A cleanup that reads a large copy back gives way to transfers, and a stop of the engine doesn't wait for it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tests.integration.sync_engine.running_engine import PATIENCE, Engine, Site, running_engine

FAILED = "sync.job.verification_failed.v1"


async def until_read(engine: Engine, file: Path) -> None:
    """The engine has the file open."""
    opened = Path(f"/proc/{engine.service.process.pid}/fd")
    async with asyncio.timeout(PATIENCE):
        while not any(_leads_to(link, file) for link in opened.iterdir()):
            await asyncio.sleep(0.01)


def _leads_to(link: Path, file: Path) -> bool:
    try:
        return link.readlink() == file.resolve()
    except FileNotFoundError:
        return False


async def test_a_large_reading_makes_way_and_ends_with_the_engine(site: Site) -> None:
    site.lab.settings["equipment"].clear()
    site.equip(transport={"bandwidth": {"upload_mbps": 800}})
    site.lab.settings["nas_cleanup"] = {"enabled": True, "min_verify_passes": 1, "min_age_hours": 1000}
    run = site.make_run({"big.bin": os.urandom(60 << 20)})
    async with running_engine(site) as engine:
        job = await engine.bring(run)
    site.lab.settings["equipment"][0]["transport"]["bandwidth"]["upload_mbps"] = 8
    site.lab.settings["nas_cleanup"]["min_age_hours"] = 0
    async with running_engine(site) as engine:
        await until_read(engine, site.at_nas(run) / "big.bin")
        await engine.bring(site.make_run({"a.tif": b"x"}, leaf="Run_2026-04-17T16-00"))
        await until_read(engine, site.at_nas(run) / "big.bin")
        assert FAILED not in await engine.event_types(f"job-{job.job_id}")
        # At 1 MiB/s the reading would take a minute.
        async with asyncio.timeout(30):
            assert await engine.service.stop() == 0
    assert (site.local(run) / "big.bin").exists()
    site.lab.settings["equipment"][0]["transport"]["bandwidth"]["upload_mbps"] = 800
    async with running_engine(site) as engine:
        assert FAILED not in await engine.event_types(f"job-{job.job_id}")
        await engine.until(job.job_id, lambda update: not (site.local(run) / "big.bin").exists())
