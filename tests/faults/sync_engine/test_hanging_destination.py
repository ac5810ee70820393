"""A destination whose filesystem hangs in the kernel: its job is ended and left behind, and nobody waits for it."""

from __future__ import annotations

import asyncio
import os

from labferry.sync.v1 import equipment_service_pb2, job_pb2
from tests.faults.sync_engine.frozen_filesystem import freezable
from tests.integration.sync_engine.running_engine import Site, running_engine, same_tree, sha256sum_agrees

HANGS, WORKS = "CONFOCAL_01", "SCOPE_02"


def _hanging_site(site: Site) -> None:
    site.equip(WORKS)
    site.lab.settings["transfer"] = {"stall_timeout": 1.0, "drain_timeout": 1.0}


async def test_a_hung_destination_delays_no_other_and_its_job_goes_on_when_it_answers(site: Site) -> None:
    _hanging_site(site)
    run = site.make_run({f"{n:02}.tif": os.urandom(1_000_000) for n in range(30)})
    with freezable(site.nas(HANGS), site.lab.folder / "nas.img") as filesystem:
        async with running_engine(site) as engine:
            await engine.bring(site.make_run(leaf="Run_2026-04-17T10-00"))
            filesystem.freeze()
            hung = (await engine.enqueue(run)).job.job_id
            for number in range(5):
                await engine.bring(site.make_run(equipment=WORKS, leaf=f"Run_2026-04-17T14-{number:02}"))
            job = await engine.job(hung)
            assert not job.sealed
            listed = await engine.equipment.ListEquipment(equipment_service_pb2.ListEquipmentRequest(), timeout=20)
            answers = {e.id: e.destinations[0] for e in listed.equipment}
            assert answers[WORKS].reachable
            assert not answers[HANGS].reachable
            assert "did not answer" in answers[HANGS].problem
            waiting = await engine.until_waiting(hung, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
            assert waiting.waiting_on[0].who_can_clear == "it"
            assert waiting.waiting_on[0].HasField("next_try_time")
            filesystem.thaw()
            await engine.until_sealed(hung)
            same_tree(site.local(run), site.at_nas(run))


async def test_a_transfer_that_stalls_in_the_middle_is_ended_and_damages_nothing(site: Site) -> None:
    _hanging_site(site)
    site.lab.settings["equipment"][0]["transport"]["bandwidth"] = {"upload_mbps": 32}
    run = site.make_run({f"{n:02}.tif": os.urandom(500_000) for n in range(40)})
    with freezable(site.nas(HANGS), site.lab.folder / "nas.img") as filesystem:
        async with running_engine(site) as engine:
            job_id = (await engine.enqueue(run)).job.job_id
            await engine.until_copying(job_id)
            filesystem.freeze()
            job = await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
            assert job.attempt == 1
            filesystem.thaw()
            job = await engine.until_sealed(job_id)
            assert job.attempt == 2
            same_tree(site.local(run), site.at_nas(run))
            assert sha256sum_agrees(site.at_nas(run)) == 40
            assert list((site.nas(HANGS) / ".labferry-incoming").iterdir()) == []


async def test_sigterm_ends_the_engine_though_a_transfer_hangs(site: Site) -> None:
    _hanging_site(site)
    site.lab.settings["equipment"][0]["transport"]["bandwidth"] = {"upload_mbps": 32}
    site.lab.settings["transfer"]["stall_timeout"] = 5
    run = site.make_run({f"{n:02}.tif": os.urandom(500_000) for n in range(40)})
    with freezable(site.nas(HANGS), site.lab.folder / "nas.img") as filesystem:
        async with running_engine(site) as engine:
            job_id = (await engine.enqueue(run)).job.job_id
            await engine.until_copying(job_id)
            filesystem.freeze()
            stopping = asyncio.create_task(engine.service.stop())
            # The process can't be gone before the kernel lets its thread go; it has recorded all before.
            async with asyncio.timeout(60):
                while "jobs_drained" not in site.lab.log_text("sync_engine"):
                    await asyncio.sleep(0.05)
            filesystem.thaw()
            assert await stopping == 0
        async with running_engine(site) as engine:
            await engine.until_sealed(job_id)
            types = await engine.event_types(f"job-{job_id}")
            # The engine told how the attempt ended: by its own end, or by the stall that it noticed first.
            ended = types.count("sync.job.requeued.v1") + types.count("sync.job.waiting.v1")
            assert (ended, types.count("sync.job.started.v1")) == (1, 2)
            same_tree(site.local(run), site.at_nas(run))
