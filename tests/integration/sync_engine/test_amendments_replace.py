"""What an accepted change replaces stays in its place until its replacement lies whole beside it (SPEC §4)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from labferry.sync.v1 import job_pb2, sync_service_pb2
from tests.faults.sync_engine.test_destinations import mounted_tmpfs
from tests.integration.sync_engine.running_engine import Site, running_engine, same_tree, sha256sum_agrees
from tests.integration.sync_engine.test_amendments import accept, superseded
from tests.integration.sync_engine.test_far_transports import rclone, rsync_ssh, sshd
from tests.integration.sync_engine.test_repairs_beside import mounted
from tests.integration.transfer.far_servers import Sshd

__all__ = ["sshd"]


@pytest.mark.parametrize("transport", [mounted, rsync_ssh, rclone])
async def test_an_amendment_that_cannot_land_leaves_all_that_was_proven_in_its_place(
    site: Site, sshd: Sshd, transport: Callable[[Site, Sshd], dict[str, Any]]
) -> None:
    site.lab.settings["equipment"].clear()
    site.equip(destinations=[{"name": "far", "transport": transport(site, sshd)}])
    run = site.make_run({"a.tif": b"old", "b.tif": b"gone", "sub": b"a file", "c.tif": b"c"})
    here, there = site.local(run), site.at_nas(run)
    async with running_engine(site) as engine:
        await engine.bring(run)
        (here / "a.tif").write_bytes(b"new one")
        await accept(engine, run, "a.tif", b"old", b"new one")
        (here / "b.tif").unlink()
        await accept(engine, run, "b.tif", b"gone", None)
        (here / "late.tif").write_bytes(b"ours")
        (there / "late.tif").write_bytes(b"theirs")
        job_id = (await engine.enqueue(run)).job.job_id
        assert (await engine.until_failed(job_id)).failure.kind == job_pb2.FAILURE_KIND_DESTINATION_FILE_DIFFERS
        assert (there / "a.tif").read_bytes() == b"old"
        assert superseded(site.nas()) == {}
        (there / "late.tif").unlink()
        assert sha256sum_agrees(there) == 4
        (here / "sub").unlink()
        await accept(engine, run, "sub", b"a file", None)
        (here / "sub").mkdir()
        (here / "sub/deep.tif").write_bytes(b"deep")
        await engine.sync.RetryJob(sync_service_pb2.RetryJobRequest(job_id=job_id, reason="theirs is gone"))
        await engine.until_sealed(job_id)
        assert superseded(site.nas()) == {"a.tif": b"old", "b.tif": b"gone", "sub": b"a file"}
        assert sha256sum_agrees(there) == 4
        assert {p.name for p in there.rglob("*.tif")} == {"a.tif", "c.tif", "late.tif", "deep.tif"}


async def test_an_amendment_that_has_no_room_leaves_all_that_was_proven_in_its_place(site: Site) -> None:
    old, new = os.urandom(3 << 20), os.urandom(3 << 20)
    with mounted_tmpfs(site.nas(), "size=8m"):
        async with running_engine(site) as engine:
            run = site.make_run({"big.bin": old})
            await engine.bring(run)
            filler = site.nas() / "filler"
            filler.write_bytes(bytes(3 << 20))
            (site.local(run) / "big.bin").write_bytes(new)
            await accept(engine, run, "big.bin", old, new)
            job_id = (await engine.enqueue(run)).job.job_id
            await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_DESTINATION_FULL)
            assert sha256sum_agrees(site.at_nas(run)) == 1
            filler.unlink()
            await engine.steer("CancelJob", job_id)
            await engine.bring(run)
            same_tree(site.local(run), site.at_nas(run))
            assert superseded(site.nas()) == {"big.bin": old}
