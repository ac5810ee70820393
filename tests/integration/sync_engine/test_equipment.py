"""EquipmentService: what destinations answer, counts by state, and pauses that outlive the engine."""

from __future__ import annotations

import os

import grpc

from labferry.sync.v1 import equipment_service_pb2 as pb
from labferry.sync.v1 import job_pb2
from tests.integration.sync_engine.running_engine import Engine, Site, running_engine, same_tree
from tests.integration.sync_engine.test_bad_input import refused


async def _get(engine: Engine, equipment_id: str = "CONFOCAL_01") -> pb.Equipment:
    equipment: pb.Equipment = await engine.equipment.GetEquipment(pb.GetEquipmentRequest(equipment_id=equipment_id))
    return equipment


async def _pause(engine: Engine, equipment_id: str = "CONFOCAL_01") -> pb.Equipment:
    request = pb.PauseEquipmentRequest(equipment_id=equipment_id, reason="NAS maintenance")
    equipment: pb.Equipment = await engine.equipment.PauseEquipment(request)
    return equipment


async def _resume(engine: Engine, equipment_id: str = "CONFOCAL_01") -> pb.Equipment:
    request = pb.ResumeEquipmentRequest(equipment_id=equipment_id, reason="done")
    equipment: pb.Equipment = await engine.equipment.ResumeEquipment(request)
    return equipment


async def test_reachability_free_space_traits_and_counts(site: Site) -> None:
    site.equip("SCOPE_02", label="Second scope")
    site.nas("SCOPE_02").rmdir()
    async with running_engine(site) as engine:
        await engine.bring(site.make_run())
        listed = await engine.equipment.ListEquipment(pb.ListEquipmentRequest())
        first, second = listed.equipment
        (nas,) = first.destinations
        assert (nas.name, nas.transport, nas.required, nas.reachable) == ("default", "mounted", True, True)
        assert nas.free_bytes > 0
        assert nas.probe.case_sensitive
        assert nas.probe.max_name_bytes == 255
        assert [(c.state, c.count) for c in first.job_counts] == [(job_pb2.JOB_STATE_VERIFIED, 1)]
        assert (second.id, second.label) == ("SCOPE_02", "Second scope")
        assert not second.destinations[0].reachable
        assert str(site.nas("SCOPE_02")) in second.destinations[0].problem
        assert not second.destinations[0].HasField("free_bytes")
        assert not second.destinations[0].HasField("probe")


async def test_a_paused_equipment_begins_nothing_ends_what_is_in_work_and_stays_so_after_a_restart(site: Site) -> None:
    site.lab.settings["equipment"].clear()
    site.equip(transport={"bandwidth": {"upload_mbps": 16}})
    site.equip("SCOPE_02")
    run = site.make_run({f"{n:02}.tif": os.urandom(400_000) for n in range(10)})
    later = site.make_run(leaf="Run_2026-04-17T15-00")
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_copying(job_id)
        waiting_id = (await engine.enqueue(later)).job.job_id
        paused = await _pause(engine)
        assert (paused.paused, paused.paused_by, paused.pause_reason) == (True, "operator-1", "NAS maintenance")
        job = await engine.until(job_id, lambda u: u.job.state == job_pb2.JOB_STATE_QUEUED)
        for held in (job, await engine.job(waiting_id)):
            (wait,) = held.waiting_on
            assert wait.condition == job_pb2.WAIT_CONDITION_EQUIPMENT_PAUSED
            assert wait.who_can_clear == "operator"
            assert "NAS maintenance" in wait.detail
        position = (await _pause(engine)).paused_time
        assert position == paused.paused_time
        elsewhere = site.make_run(equipment="SCOPE_02")
        await engine.bring(elsewhere)
    async with running_engine(site) as engine:
        assert (await _get(engine)).paused
        assert (await engine.job(job_id)).waiting_on[0].condition == job_pb2.WAIT_CONDITION_EQUIPMENT_PAUSED
        assert (await engine.job(job_id)).attempt == 1
        resumed = await _resume(engine)
        assert not resumed.paused
        assert not resumed.HasField("paused_time")
        await engine.until_sealed(job_id)
        await engine.until_sealed(waiting_id)
        same_tree(site.local(run), site.at_nas(run))
        types = await engine.event_types("equipment-CONFOCAL_01")
        assert types == ["sync.equipment.paused.v1", "sync.equipment.resumed.v1"]


async def test_a_pause_during_the_verification_and_the_job_goes_on_with_it(site: Site) -> None:
    run = site.make_run({f"{n:03}.tif": os.urandom(1_000_000) for n in range(40)})
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_state(job_id, job_pb2.JOB_STATE_AWAITING_VERIFY)
        await _pause(engine)
        await _resume(engine)
        assert (await engine.until_sealed(job_id)).verify_passes == 1


async def test_equipment_that_is_not_configured_and_requests_without_sense(engine: Engine) -> None:
    unknown = engine.equipment.GetEquipment(pb.GetEquipmentRequest(equipment_id="NOWHERE"))
    assert (await refused(unknown))[:2] == (grpc.StatusCode.NOT_FOUND, "EQUIPMENT_NOT_CONFIGURED")
    unknown = engine.equipment.PauseEquipment(pb.PauseEquipmentRequest(equipment_id="NOWHERE", reason="r"))
    assert (await refused(unknown))[:2] == (grpc.StatusCode.NOT_FOUND, "EQUIPMENT_NOT_CONFIGURED")
    no_reason = engine.equipment.PauseEquipment(pb.PauseEquipmentRequest(equipment_id="CONFOCAL_01"))
    assert (await refused(no_reason))[0] is grpc.StatusCode.INVALID_ARGUMENT
