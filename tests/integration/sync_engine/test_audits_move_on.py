"""A copy that rotted, or can't be checked, holds up neither its other files nor the other copies (SPEC §4)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from labferry.sync.v1 import equipment_service_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import EQUIPMENT, PATIENCE, Engine, Site, running_engine
from tests.integration.sync_engine.test_audits import FAILED, REPAIRED, SCRUBBED, rot, rotted

SCRUBS = {"audit_interval_hours": 1000, "scrub_interval_days": 0.5 / 86400}


async def evidence_times(engine: Engine, run: str) -> dict[str, datetime]:
    request = sync_service_pb2.ListEvidenceRequest(run=run)
    return {e.path: e.time.ToDatetime(tzinfo=UTC) async for e in engine.sync.ListEvidence(request)}


async def until_events(engine: Engine, stream: str, event_type: str, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await engine.event_types(stream)).count(event_type) < count:
            await asyncio.sleep(0.1)


async def test_a_file_that_stays_rotten_holds_up_no_other_file_and_no_other_copy(site: Site) -> None:
    site.lab.settings.update(verify={"audit_interval_hours": 1000}, nas_cleanup={"min_verify_passes": 1})
    more_than_a_portion = {f"{number:04}.bin": b"%d" % number for number in range(2_005)}
    async with running_engine(site) as engine:
        sick = site.make_run(more_than_a_portion)
        sick_job = (await engine.bring(sick)).job_id
        sound_job = (await engine.bring(site.make_run(leaf="Run_2026-04-17T15-00"))).job_id
        verified = await evidence_times(engine, sick)
    rot(site.at_nas(sick) / "0000.bin")
    (site.local(sick) / "0000.bin").write_bytes(b"no source any more")
    site.lab.settings["verify"] = SCRUBS
    async with running_engine(site) as engine:
        await until_events(engine, f"job-{sound_job}", SCRUBBED, 4)
        await until_events(engine, f"job-{sick_job}", FAILED, 2)
        types = await engine.event_types(f"job-{sick_job}")
        sound = (await engine.event_types(f"job-{sound_job}")).count(SCRUBBED)
        assert types.count(FAILED) <= 2 * (sound + 1), "two portions in their turn, and no more"
        times = await evidence_times(engine, sick)
        assert [path for path in verified if times[path] == verified[path]] == ["0000.bin"]
        assert f"{sick}/0000.bin" in {f.offending_path for f in await rotted(engine, sick)}


async def test_a_cancelled_amendment_leaves_the_copy_that_it_was_to_amend_in_the_scrub(site: Site) -> None:
    site.lab.settings.update(verify=SCRUBS, nas_cleanup={"min_verify_passes": 1})
    async with running_engine(site) as engine:
        run = site.make_run()
        base = (await engine.bring(run)).job_id
        (site.local(run) / "late.tif").write_bytes(b"late")
        pause = equipment_service_pb2.PauseEquipmentRequest(equipment_id=EQUIPMENT, reason="because")
        await engine.equipment.PauseEquipment(pause)
        await engine.steer("CancelJob", (await engine.enqueue(run)).job.job_id)
        rot(site.at_nas(run) / "a.tif")
        resume = equipment_service_pb2.ResumeEquipmentRequest(equipment_id=EQUIPMENT, reason="because")
        await engine.equipment.ResumeEquipment(resume)
        await engine.until_event(f"job-{base}", REPAIRED)
        await engine.until(base, lambda u: u.job.verify_passes == 1)
        assert (site.at_nas(run) / "a.tif").read_bytes() == b"pixels"
