"""What keeps an engine from starting: one clear sentence, and an exit status that tells programs what it was. And what
doesn't."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import subprocess
import sys

import pytest

from tests.integration.secrets.running_service import ServiceEndedError, start
from tests.integration.sync_engine.running_engine import Engine, Site, running_engine, start_engine

CANNOT_START, WRONG_CONFIGURATION = 75, 78


async def _fails(site: Site) -> tuple[int, str]:
    with pytest.raises(ServiceEndedError) as failed:
        await start(site.lab, "sync_engine")
    assert "Traceback" not in failed.value.log
    return failed.value.status, failed.value.log


async def test_a_second_engine_on_the_same_state_folder(engine: Engine, site: Site) -> None:
    site.lab.settings["listen"]["sync_engine"] = f"unix:{site.lab.folder}/second.sock"
    status, log = await _fails(site)
    assert status == CANNOT_START
    assert "in use" in log or "another process" in log
    site.lab.settings["listen"]["sync_engine"] = f"unix:{site.lab.folder}/sync_engine.sock"
    await engine.bring(site.make_run())


async def test_an_address_in_use(site: Site) -> None:
    engine = await start_engine(site)
    site.lab.settings["state_dir"] = str(site.lab.folder / "another state")
    command = [sys.executable, "-m", "services.sync_engine", "--config", str(site.lab.write_config())]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == CANNOT_START
    assert "sync_engine.sock" in second.stderr
    assert "Traceback" not in second.stderr
    assert await engine.service.stop() == 0


async def test_every_mistake_of_a_configuration_is_listed_with_line_and_key(site: Site) -> None:
    site.equip("lower", transport={"bandwidth": {"upload_mbps": -3}})
    site.lab.settings["surprise"] = 1
    status, log = await _fails(site)
    assert status == WRONG_CONFIGURATION
    assert "3 mistakes" in log
    for key in ("equipment[1].id", "equipment[1].transport.bandwidth.upload_mbps", "surprise"):
        (line,) = [row for row in log.splitlines() if key in row]
        assert "line " in line


async def test_a_damaged_log_is_said_so(site: Site) -> None:
    engine = await start_engine(site)
    await engine.service.stop()
    path = site.lab.state_dir / "sync_engine" / "events.sqlite3"
    path.write_bytes(b"not a database" * 1000)
    status, log = await _fails(site)
    assert status == CANNOT_START
    assert "events.sqlite3" in log or "log" in log


async def test_folders_that_are_gone_are_told_once_at_the_start(site: Site) -> None:
    async with running_engine(site) as engine:
        runs = [site.make_run(leaf=leaf) for leaf in ("Run_2026-04-17T14-32", "Run_2026-04-17T14-33")]
        for run in runs:
            await engine.bring(run)
    for run in runs:
        shutil.rmtree(site.local(run))
    seen = len(site.lab.log_text("sync_engine"))
    async with running_engine(site):
        async with asyncio.timeout(60):
            while "creation_files_gone" not in site.lab.log_text("sync_engine")[seen:]:
                await asyncio.sleep(0.02)
    lines = [json.loads(line) for line in site.lab.log_text("sync_engine")[seen:].splitlines()]
    told = [line for line in lines if line["event"].startswith("creation_file")]
    assert [(line["event"], line["runs"]) for line in told] == [("creation_files_gone", 2)]


async def test_a_low_limit_of_open_files_that_may_be_raised_is(site: Site) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    run = site.make_run({f"{number:03}.tif": b"pixels" for number in range(600)})
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        engine = await start_engine(site)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        await engine.bring(run)
    finally:
        await engine.service.stop()
