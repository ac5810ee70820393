"""A machine that was suspended, its engine and the tools in its hands, while another finished the engine's job: of what
that one proved nothing is lost when it wakes, and at most the few calls that the tools had begun are carried out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.sync_engine.transfer.rclone_move import FEW_AT_ONCE
from tests.faults.sync_engine.frozen_engine import children_of, frozen_when_made, stop_machine, wake_machine
from tests.faults.sync_engine.test_frozen_engine import standing_still, until_it_noticed
from tests.faults.sync_engine.test_replicas import LEASE, replica_of
from tests.integration.sync_engine.running_engine import Engine, Site, new_site, running_engine
from tests.integration.sync_engine.test_amendments import accept
from tests.integration.sync_engine.test_far_transports import rclone as rclone_sftp
from tests.integration.transfer.far_servers import running_sshd

FILES = 60


@dataclass(frozen=True)
class Served:
    """A destination: how it is configured, and the folder that its server serves."""

    transport: dict[str, Any]
    folder: Path


@contextmanager
def sftp(site: Site, folder: Path) -> Iterator[Served]:
    with running_sshd(folder / "sshd") as sshd:
        yield Served(rclone_sftp(site, sshd), site.nas())


async def until_alone(engine: Engine) -> None:
    """No tool of it runs any more."""
    async with asyncio.timeout(30):
        while children_of(engine.service.process.pid):
            await asyncio.sleep(0.05)


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.tif")}


@pytest.mark.parametrize("serving", [sftp])
async def test_what_it_was_moving_aside_stays_where_another_proved_it(
    postgres_url: str, tmp_path: Path, serving: Any
) -> None:
    old = {f"{n:03}.tif": b"old %d" % n for n in range(FILES)}
    new = {name: content.replace(b"old", b"newer") for name, content in old.items()}
    with ExitStack() as servers:
        async with new_site() as site:
            served = servers.enter_context(serving(site, tmp_path))
            site.equip(destinations=[{"name": "far", "transport": served.transport}])
            site.lab.settings["transfer"] = LEASE
            site.lab.settings["event_log"] = {"url": postgres_url, "blob_folder": str(site.lab.folder / "blobs")}
            run = site.make_run(old)
            superseded, copy = served.folder / ".labferry-superseded", served.folder / run.partition("/")[2]
            superseded.mkdir(parents=True)
            async with replica_of(site, postgres_url) as second, running_engine(site) as a, running_engine(second) as b:
                await a.bring(run)
                for name, content in new.items():
                    (site.local(run) / name).write_bytes(content)
                for name in old:
                    await accept(a, run, name, old[name], new[name])
                machine = a.service.process.pid
                try:
                    with frozen_when_made(superseded, machine, stop_machine) as frozen, standing_still(b):
                        amendment = (await a.enqueue(run)).job.job_id
                        assert await asyncio.to_thread(frozen.wait, 60)
                    assert len(files_below(superseded)) < FILES, "it was in the middle of it"
                    await b.until_sealed(amendment)
                    assert files_below(copy) == new
                finally:
                    wake_machine(machine)
                await until_it_noticed(site)
                await until_alone(a)
            lost = new.keys() - files_below(copy).keys()
            assert len(lost) <= FEW_AT_ONCE
            kept = [path.read_bytes() for path in superseded.rglob("*") if path.is_file()]
            assert sorted(kept) == sorted([*old.values(), *(new[name] for name in lost)])
