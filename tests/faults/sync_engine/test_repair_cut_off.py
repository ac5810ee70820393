"""A repair whose engine ends is begun again by the next one at once, not when the next pass would be (SPEC §4)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from labferry.sync.v1 import sync_service_pb2
from tests.integration.sync_engine.running_engine import (
    Site,
    new_site,
    running_engine,
    same_tree,
    start_engine,
)
from tests.integration.sync_engine.test_audits import REPAIRED, rot, rotted
from tests.integration.sync_engine.test_far_transports import equip, rsync_ssh
from tests.integration.transfer.far_servers import Sshd, running_sshd

FILES = {f"{number:02}.tif": bytes([number]) * 100_000 for number in range(30)}
ENDED = "sync.job.repair_ended.v1"


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


@pytest.mark.parametrize("way", ["kill -9", "SIGTERM"])
@pytest.mark.parametrize("transport", [mounted, rsync_ssh])
async def test_the_next_engine_goes_on_with_it(site: Site, sshd: Sshd, transport: Any, way: str) -> None:
    equip(site, transport(site, sshd))
    run = site.make_run(FILES)
    async with running_engine(site) as engine:
        job = await engine.bring(run)
    for name in FILES:
        rot(site.at_nas(run) / name)
    # Slow enough to be met in the middle.
    site.lab.settings["equipment"][0]["destinations"][0]["transport"]["bandwidth"] = {"upload_mbps": 16}
    engine = await start_engine(site)
    async for _ in engine.sync.VerifyRun(sync_service_pb2.VerifyRunRequest(run=run)):
        pass
    await engine.until_event(f"job-{job.job_id}", REPAIRED)
    if way == "kill -9":
        await engine.kill()
    else:
        assert await engine.service.stop() == 0
    del site.lab.settings["equipment"][0]["destinations"][0]["transport"]["bandwidth"]
    async with running_engine(site) as engine:
        assert ENDED not in await engine.event_types(f"job-{job.job_id}"), "it came to its end before"
        await engine.until(job.job_id, lambda u: u.job.verify_passes > 0)
        same_tree(site.local(run), site.at_nas(run))
        assert await rotted(engine, run) == []
