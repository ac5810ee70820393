"""The manifest and the receipt beside a proven copy stay what they were: readings look at them too (SPEC §4)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from labferry.sync.v1 import job_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import (
    Engine,
    Site,
    new_site,
    running_engine,
    sha256sum_agrees,
)
from tests.integration.sync_engine.test_audits import AT_ONCE, SCRUBBED, VERIFIED
from tests.integration.sync_engine.test_cleanup import ALLOWED, clean, data_files, lacking, verify
from tests.integration.sync_engine.test_far_transports import equip, rclone, rsync_ssh
from tests.integration.transfer.far_servers import Sshd, running_sshd

MANIFEST, CREATION = "checksums.sha256", "creation.json"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("far") / "sshd") as running:
        yield running


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with new_site() as site:
        yield site


def mounted(site: Site, sshd: Sshd) -> dict[str, Any]:
    return {"type": "mounted", "path": str(site.nas())}


def records(site: Site, run: str) -> tuple[Path, dict[str, bytes]]:
    """The copy's cache folder, and what lies there."""
    folder = site.at_nas(run) / ".exlab-wizard"
    return folder, {path.name: path.read_bytes() for path in folder.iterdir()}


async def reports(engine: Engine, run: str) -> list[sync_service_pb2.VerifyReport]:
    request = sync_service_pb2.VerifyRunRequest(run=run)
    return [u.report async for u in engine.sync.VerifyRun(request) if u.HasField("report")]


@pytest.mark.parametrize("transport", [mounted, rsync_ssh, rclone])
async def test_a_pass_puts_back_what_was_lost_or_rotted(site: Site, sshd: Sshd, transport: Any) -> None:
    equip(site, transport(site, sshd))
    run = site.make_run({"a.tif": b"pixels", "b": b"b"})
    async with running_engine(site) as engine:
        await engine.bring(run)
        folder, sealed = records(site, run)
        (report,) = await reports(engine, run)
        ordinary = report.note
        assert "put back" not in ordinary
        (folder / MANIFEST).write_bytes(b"")
        (folder / "receipt.far.json").unlink()
        (report,) = await reports(engine, run)
        assert report.passed
        assert MANIFEST in report.note
        assert "receipt.far.json" in report.note
        assert records(site, run)[1] == sealed
        assert sha256sum_agrees(site.at_nas(run)) == 2
        (report,) = await reports(engine, run)
        assert report.note == ordinary


async def test_what_others_write_into_creation_json_there_stays(site: Site, sshd: Sshd) -> None:
    equip(site, mounted(site, sshd))
    run = site.make_run({"a.tif": b"pixels"})
    async with running_engine(site) as engine:
        await engine.bring(run)
        folder, _ = records(site, run)
        (folder / CREATION).write_bytes(b"another program's")
        assert await verify(engine, run)
        assert (folder / CREATION).read_bytes() == b"another program's"
        (folder / CREATION).unlink()
        (report,) = await reports(engine, run)
        assert (report.passed, report.note) == (True, "creation.json is missing beside the copy")


@pytest.mark.parametrize("reading", [VERIFIED, SCRUBBED])
async def test_the_engines_own_readings_put_them_back(site: Site, sshd: Sshd, reading: str) -> None:
    """A scrub also where nothing is left here."""
    cleaned = reading == SCRUBBED
    equip(site, mounted(site, sshd))
    site.lab.settings["nas_cleanup"] = {
        **ALLOWED,
        "min_verify_passes": 1 if cleaned else 2,
        "enabled": cleaned,
        "retain_cache": False,
    }
    site.lab.settings["verify"] = {"audit_interval_hours": 1000, "scrub_interval_days": 1000}
    run = site.make_run({"a.tif": b"pixels"})
    async with running_engine(site) as engine:
        job = await engine.bring(run)
        if cleaned:
            await engine.until_state(job.job_id, job_pb2.JOB_STATE_CLEANED)
        last = (await engine.events())[-1].position
    folder, sealed = records(site, run)
    (folder / MANIFEST).unlink()
    (folder / "receipt.far.json").write_bytes(sealed["receipt.far.json"][:-10])
    site.lab.settings["verify"] = {"audit_interval_hours": AT_ONCE, "scrub_interval_days": AT_ONCE / 24}
    async with running_engine(site) as engine:
        await engine.until_event(f"job-{job.job_id}", reading, last)
        assert records(site, run)[1] == sealed


async def test_nothing_is_deleted_here_while_they_are_wrong_there(site: Site, sshd: Sshd) -> None:
    equip(site, mounted(site, sshd))
    site.lab.settings["nas_cleanup"] = {**ALLOWED, "min_verify_passes": 1, "min_age_hours": 1000}
    run = site.make_run({"a.tif": b"pixels"})
    async with running_engine(site) as engine:
        await engine.bring(run)
    folder, sealed = records(site, run)
    # What can't be replaced by a file.
    (folder / MANIFEST).unlink()
    (folder / MANIFEST / "sub").mkdir(parents=True)
    (folder / "receipt.far.json").unlink()
    site.lab.settings["nas_cleanup"]["min_age_hours"] = 0
    async with running_engine(site) as engine:
        held = await clean(engine, run)
        assert not held.cleaned
        # Looking whether the copy is the run itself puts a file there, which would be too late.
        assert "fresh_read_back" in lacking(held)
        (detail,) = [i.detail for i in held.interlocks if i.name == "fresh_read_back"]
        assert MANIFEST in detail
        assert data_files(site.local(run)) == {"a.tif"}
        (folder / MANIFEST / "sub").rmdir()
        (folder / MANIFEST).rmdir()
        assert (await clean(engine, run)).cleaned
        assert records(site, run)[1][MANIFEST] == sealed[MANIFEST]
        assert sha256sum_agrees(site.at_nas(run)) == 1
