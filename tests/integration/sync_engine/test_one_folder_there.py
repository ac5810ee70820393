"""Two projects whose names differ in case alone never come together in one folder of a storage."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labferry.sync.v1 import job_pb2
from tests.integration.sync_engine.running_engine import (
    EQUIPMENT,
    Engine,
    Site,
    creation_document,
    new_site,
    running_engine,
    sha256sum_agrees,
)
from tests.integration.transfer.carrying import tree
from tests.integration.transfer.far_servers import running_samba


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Its NAS is a Samba share behind rclone."""
    async with new_site() as site:
        site.nas().mkdir(parents=True, exist_ok=True)
        with running_samba(site.nas(), tmp_path / "samba") as port:
            config = site.lab.folder / "rclone.conf"
            config.write_text(f"[far]\ntype = smb\nhost = 127.0.0.1\nport = {port}\nuser = guest\n")
            remote = {"rclone_remote": "far", "rclone_remote_path": "lab", "rclone_config": str(config)}
            site.equip(destinations=[{"name": "nas", "transport": {"type": "rclone", **remote}}])
            yield site


def make(site: Site, project: str, leaf: str) -> str:
    """A run of a project that has records and a file of its own."""
    run = f"{EQUIPMENT}/{project}/Runs/{leaf}"
    site.local(run).mkdir(parents=True)
    (site.local(run) / "a.txt").write_bytes(b"common")
    (site.local(run) / f"only {project}.txt").write_bytes(project.encode())
    for place, level in ((run, "run"), (f"{EQUIPMENT}/{project}", "project")):
        lims = {"uid": project, "short_id": "PROJ-0042", "name_at_creation": project}
        site.write_creation(place, creation_document(level=level, lims_project=lims))
    (site.local(run).parents[1] / "README.md").write_text(project)
    return run


async def refused(engine: Engine, run: str) -> None:
    job = await engine.until_failed((await engine.enqueue(run)).job.job_id)
    assert job.failure.kind == job_pb2.FAILURE_KIND_NAME_NOT_POSSIBLE, job.failure.message
    assert "alpha: the destination has Alpha, which is the same folder to it" in job.failure.message
    assert "rename" in job.failure.message


async def test_the_second_of_two_projects_is_refused_before_a_byte(site: Site) -> None:
    first = make(site, "Alpha", "Run_2026-04-17T01-00")
    async with running_engine(site) as engine:
        await engine.bring(first)
        held = tree(site.nas())
        await refused(engine, make(site, "alpha", "Run_2026-04-17T01-00"))
        await refused(engine, make(site, "alpha", "Run_2026-04-17T01-30"))
        await refused(engine, f"{EQUIPMENT}/alpha")
        assert tree(site.nas()) == held
        record = json.loads((site.nas() / "Alpha" / ".exlab-wizard" / "creation.json").read_text())
        assert record["lims_project"]["name_at_creation"] == "Alpha"
        # The first goes on.
        (site.local(first) / "later.txt").write_bytes(b"later")
        assert (await engine.bring(first)).amendment == 1
        await engine.bring(make(site, "Alpha", "Run_2026-04-17T01-30"))
        await engine.bring(f"{EQUIPMENT}/Alpha")
        assert sha256sum_agrees(site.nas() / "Alpha" / "Runs" / "Run_2026-04-17T01-00") == 3
        (site.nas() / "Alpha").rename(site.nas() / "Beta")
        again = await engine.enqueue(f"{EQUIPMENT}/alpha")
        await engine.until_sealed(again.job.job_id)
        assert {place.name for place in site.nas().iterdir()} >= {"alpha", "Beta"}
