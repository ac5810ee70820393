"""An engine that stood still while another finished its job does nothing more at the storage when it wakes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from tests.faults.sync_engine.frozen_engine import frozen_when_made
from tests.faults.sync_engine.test_replicas import LEASE, replica_of
from tests.integration.sync_engine.running_engine import Engine, Site, new_site, running_engine, same_tree
from tests.integration.sync_engine.test_amendments import accept
from tests.integration.sync_engine.test_cleanup import verify

FILES = 150
CACHE = ".exlab-wizard"


@pytest.fixture
async def first(postgres_url: str) -> AsyncIterator[Site]:
    async with new_site() as site:
        site.equip()
        site.lab.settings["transfer"] = LEASE
        site.lab.settings["event_log"] = {"url": postgres_url, "blob_folder": str(site.lab.folder / "blobs")}
        yield site


@contextmanager
def standing_still(engine: Engine) -> Iterator[None]:
    engine.service.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        engine.service.process.send_signal(signal.SIGCONT)


async def until_it_noticed(site: Site) -> None:
    """The engine that woke says that its lease is lost."""
    log = site.lab.folder / "sync_engine.log"
    async with asyncio.timeout(30):
        while "lease_lost" not in log.read_text(encoding="utf-8"):
            await asyncio.sleep(0.05)


async def test_a_frozen_engine_moves_nothing_aside_that_another_proved(first: Site, postgres_url: str) -> None:
    old = {f"{n:03}.tif": b"old %d" % n for n in range(FILES)}
    new = {name: content.replace(b"old", b"newer") for name, content in old.items()}
    run = first.make_run(old)
    (first.nas() / ".labferry-superseded").mkdir(parents=True)
    async with replica_of(first, postgres_url) as second, running_engine(first) as a, running_engine(second) as b:
        await a.bring(run)
        for name in old:
            (first.local(run) / name).write_bytes(new[name])
        await asyncio.gather(*(accept(a, run, name, old[name], new[name]) for name in old))
        try:
            superseded = first.nas() / ".labferry-superseded"
            with frozen_when_made(superseded, a.service.process.pid) as frozen, standing_still(b):
                amendment = (await a.enqueue(run)).job.job_id
                assert await asyncio.to_thread(frozen.wait, 30)
            await b.until_sealed(amendment)
            same_tree(first.local(run), first.at_nas(run))
        finally:
            a.service.process.send_signal(signal.SIGCONT)
        await until_it_noticed(first)
        same_tree(first.local(run), first.at_nas(run))
        assert await verify(b, run)
