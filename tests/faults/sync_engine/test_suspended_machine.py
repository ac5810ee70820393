"""A machine that was suspended, its engine and the tools in its hands, while another finished the engine's job: of what
that one proved nothing is lost when it wakes, and at most the few calls that the tools had begun are carried out.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
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
from tests.integration.sync_engine.test_far_transports import rsync_ssh
from tests.integration.transfer.far_servers import rclone_serving, running_sshd

FILES = 60
_OF_A_SCRIPT = ("/xargs", "/sh", "/dash", "/bash")


@dataclass(frozen=True)
class Served:
    """A destination: how it is configured, and the folder that its server serves."""

    transport: dict[str, Any]
    folder: Path


@contextmanager
def sftp(site: Site, folder: Path) -> Iterator[Served]:
    with running_sshd(folder / "sshd") as sshd:
        yield Served(rclone_sftp(site, sshd), site.nas())


@contextmanager
def bucket(site: Site, folder: Path) -> Iterator[Served]:
    (folder / "served" / "bucket").mkdir(parents=True)
    config = site.lab.folder / "rclone.conf"
    with rclone_serving("s3", folder / "served", folder, "--auth-key", "someone,something") as port:
        config.write_text(
            f"[far]\ntype = s3\nprovider = Rclone\nendpoint = http://127.0.0.1:{port}\n"
            "use_multipart_uploads = false\naccess_key_id = someone\nsecret_access_key = something\n"
        )
        remote = {"type": "rclone", "rclone_remote": "far", "rclone_config": str(config)}
        yield Served({**remote, "rclone_remote_path": "bucket/lab"}, folder / "served" / "bucket" / "lab")


async def until_alone(engine: int) -> None:
    """No tool of it runs any more."""
    async with asyncio.timeout(30):
        while children_of(engine):
            await asyncio.sleep(0.05)


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.tif")}


@dataclass(frozen=True)
class Replicas:
    """Two engines, and an amendment to be that replaces every file of a copy."""

    site: Site
    a: Engine
    b: Engine
    run: str
    old: dict[str, bytes]
    new: dict[str, bytes]
    superseded: Path
    copy: Path


@asynccontextmanager
async def replicas(postgres_url: str, folder: Path, serving: Any) -> AsyncIterator[Replicas]:
    old = {f"{n:03}.tif": b"old %d" % n for n in range(FILES)}
    new = {name: content.replace(b"old", b"newer") for name, content in old.items()}
    async with AsyncExitStack() as opened:
        site = await opened.enter_async_context(new_site())
        served = opened.enter_context(serving(site, folder))
        site.equip(destinations=[{"name": "far", "transport": served.transport}])
        site.lab.settings["transfer"] = LEASE
        site.lab.settings["event_log"] = {"url": postgres_url, "blob_folder": str(site.lab.folder / "blobs")}
        run = site.make_run(old)
        superseded = served.folder / ".labferry-superseded"
        superseded.mkdir(parents=True)
        second = await opened.enter_async_context(replica_of(site, postgres_url))
        b = await opened.enter_async_context(running_engine(second))
        a = await opened.enter_async_context(running_engine(site))
        await a.bring(run)
        for name, content in new.items():
            (site.local(run) / name).write_bytes(content)
        for name in old:
            await accept(a, run, name, old[name], new[name])
        yield Replicas(site, a, b, run, old, new, superseded, served.folder / run.partition("/")[2])


async def in_the_middle(at: Replicas, pid: int, stop: Callable[[int], None]) -> str:
    """Queues the amendment; returns when `stop` stopped the moving aside that the first engine had begun."""
    with frozen_when_made(at.superseded, pid, stop) as frozen, standing_still(at.b):
        amendment = (await at.a.enqueue(at.run)).job.job_id
        assert await asyncio.to_thread(frozen.wait, 60)
    assert len(files_below(at.superseded)) < FILES, "it was in the middle of it"
    return amendment


@pytest.mark.parametrize(("serving", "most_moved"), [(sftp, FEW_AT_ONCE), (bucket, 0)])
async def test_what_it_was_moving_aside_stays_where_another_proved_it(
    postgres_url: str, tmp_path: Path, serving: Any, most_moved: int
) -> None:
    async with replicas(postgres_url, tmp_path, serving) as at:
        machine = at.a.service.process.pid
        try:
            await at.b.until_sealed(await in_the_middle(at, machine, stop_machine))
            assert files_below(at.copy) == at.new
        finally:
            wake_machine(machine)
        await until_it_noticed(at.site)
        await until_alone(machine)
        lost = at.new.keys() - files_below(at.copy).keys()
        assert len(lost) <= most_moved
        kept = {path.read_bytes() for path in at.superseded.rglob("*") if path.is_file()}
        assert kept >= {*at.old.values(), *(at.new[name] for name in lost)}
        # What a bucket was asked to copy aside stays as well.
        assert len(kept - {*at.old.values()}) <= FEW_AT_ONCE


async def test_a_script_that_stood_still_at_the_far_end_moves_nothing_aside_that_another_proved(
    postgres_url: str, tmp_path: Path
) -> None:
    scripts: list[int] = []

    def stop_scripts(sshd: int) -> None:
        for process in children_of(sshd):
            # One that ends meanwhile is no shell.
            with suppress(OSError):
                if os.readlink(f"/proc/{process}/exe").endswith(_OF_A_SCRIPT):
                    os.kill(process, signal.SIGSTOP)
                    scripts.append(process)

    @contextmanager
    def rsync(site: Site, folder: Path) -> Iterator[Served]:
        with running_sshd(folder / "sshd") as sshd:
            servers.append(sshd.process.pid)
            yield Served(rsync_ssh(site, sshd), site.nas())

    servers: list[int] = []
    async with replicas(postgres_url, tmp_path, rsync) as at:
        try:
            amendment = await in_the_middle(at, servers[0], stop_scripts)
            at.a.service.process.kill()
            await at.a.service.process.wait()
            await at.b.until_sealed(amendment)
            assert files_below(at.copy) == at.new
        finally:
            for script in scripts:
                os.kill(script, signal.SIGCONT)
        async with asyncio.timeout(30):
            while set(children_of(servers[0])) & set(scripts):
                await asyncio.sleep(0.05)
        lost = at.new.keys() - files_below(at.copy).keys()
        assert len(lost) <= 1
        kept = [path.read_bytes() for path in at.superseded.rglob("*") if path.is_file()]
        assert sorted(kept) == sorted([*at.old.values(), *(at.new[name] for name in lost)])
