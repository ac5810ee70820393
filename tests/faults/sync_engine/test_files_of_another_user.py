"""Where the engine doesn't own the files and has no CAP_LEASE, nobody knows who has them open for writing (SPEC §4)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from labferry.sync.v1 import job_pb2
from tests.faults.sync_engine import unprivileged_engine
from tests.faults.sync_engine.unprivileged_engine import ENGINE, GROUP, INSTRUMENT
from tests.integration.sync_engine.running_engine import Engine, Site, start_engine
from tests.integration.sync_engine.test_cleanup import clean, data_files, lacking, until_cleaned

FILES = {"a.raw": b"measured", "sub/b.raw": b"more"}


@pytest.fixture
def shared(site: Site) -> str:
    """A run of the instrument's user, in a folder that the engine may write to."""
    site.lab.settings["nas_cleanup"] = {"enabled": True, "min_verify_passes": 1, "min_age_hours": 0}
    run = site.make_run(FILES)
    site.lab.state_dir.mkdir(exist_ok=True)
    for folder in (site.lab.folder, site.lab.state_dir, site.nas()):
        os.chown(folder, ENGINE, GROUP)
    for place, _, names in os.walk(site.local_root):
        os.chown(place, INSTRUMENT, GROUP)
        os.chmod(place, 0o2775)
        for name in names:
            os.chown(Path(place, name), INSTRUMENT, GROUP)
            os.chmod(Path(place, name), 0o664)
    return run


@asynccontextmanager
async def _unprivileged(site: Site) -> AsyncIterator[Engine]:
    engine = await start_engine(site, module=unprivileged_engine.__name__)
    try:
        yield engine
    finally:
        assert await engine.service.stop() == 0


async def test_they_stay_and_it_is_told_what_to_do_unless_the_configuration_allows_it(site: Site, shared: str) -> None:
    async with _unprivileged(site) as engine:
        job = await engine.bring(shared)
        held = await engine.until_waiting(job.job_id, job_pb2.WAIT_CONDITION_CLEANUP_INTERLOCK)
        assert held.waiting_on[0].detail.startswith("writers_visible: a.raw: nobody can tell")
        with open(site.local(shared) / "a.raw", "r+b") as instrument:
            dry = await clean(engine, shared, dry_run=True)
            assert lacking(dry) - {"fresh_read_back", "copy_is_elsewhere"} == {"writers_visible"}
            (told,) = [i.detail for i in dry.interlocks if i.name == "writers_visible"]
            assert "AmbientCapabilities=CAP_LEASE" in told
            assert "nas_cleanup.delete_without_lease" in told
            assert not (await clean(engine, shared)).cleaned
            instrument.write(b"more")
        hidden = site.local(shared) / "sub/b.raw"
        os.chmod(hidden, 0o600)
        dry = await clean(engine, shared, dry_run=True)
        (told,) = [i.detail for i in dry.interlocks if i.name == "local_files_unchanged"]
        assert "sub/b.raw can't be read on this machine: Permission denied" in told
        assert "sub/b.raw changed" not in told
        os.chmod(hidden, 0o664)
        assert data_files(site.local(shared)) == set(FILES)
        (site.local(shared) / "a.raw").write_bytes(FILES["a.raw"])
    os.utime(site.local(shared) / "a.raw", ns=(0, (site.at_nas(shared) / "a.raw").stat().st_mtime_ns))
    site.lab.settings["nas_cleanup"]["delete_without_lease"] = True
    async with _unprivileged(site) as engine:
        await until_cleaned(engine, job.job_id)
        assert data_files(site.local(shared)) == set()
