"""A copy whose seal says less than the run does is sealed anew, whatever comes in between."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

from labferry.events.v1 import event_log_service_pb2, job_events_pb2
from labferry.sync.v1 import equipment_service_pb2, finding_pb2, job_pb2, run_pb2, run_service_pb2
from services.sync_engine.event_types import job_stream
from tests.integration.sync_engine.running_engine import EQUIPMENT, PATIENCE, Engine, Site, running_engine

CREATION = ".exlab-wizard/creation.json"
_SLOW = {"bandwidth": {"upload_mbps": 16}}


async def _sealed_as_pending(site: Site) -> tuple[str, str, str]:
    """A run that waits for its last required destination: itself, and the jobs to `nas`, sealed, and `late`."""
    site.lab.settings["equipment"].clear()
    transports = {name: {"type": "mounted", "path": str(site.nas(destination=name))} for name in ("nas", "late")}
    destinations = [{"name": name, "transport": {**transport, **_SLOW}} for name, transport in transports.items()]
    site.equip(destinations=destinations, max_parallel=1)
    run = site.make_run()
    async with running_engine(site) as engine:
        nas, late = (job.job_id for job in (await engine.enqueue(run)).jobs)
        await engine.until_sealed(nas)
    assert _status_at(site.at_nas(run)) == "pending"
    site.nas(destination="late").mkdir(parents=True)
    return run, nas, late


def _status_at(copy: Path) -> str:
    return str(json.loads((copy / CREATION).read_bytes()).get("sync_status", "pending"))


async def _until_sealed_as_synced(engine: Engine, job_id: str, overrides: int = 0) -> None:
    stream = job_stream(job_id)
    request = event_log_service_pb2.SubscribeEventsRequest(after_position=0, stream_prefix=stream)
    following = engine.log.SubscribeEvents(request)
    async with asyncio.timeout(PATIENCE):
        async for step in following:
            for event in step.events.events:
                sealed = job_events_pb2.JobSealed()
                said = (sealed.sync_status, sealed.override_count) if event.payload.Unpack(sealed) else None
                if said == (run_pb2.SYNC_STATUS_SYNCED, overrides):
                    following.cancel()
                    return


async def test_a_destination_that_was_away_is_sealed_anew_when_it_is_back(site: Site) -> None:
    run, nas, late = await _sealed_as_pending(site)
    away = site.nas().with_name("away")
    site.nas().rename(away)
    async with running_engine(site) as engine:
        await engine.until_sealed(late)
        await engine.until_waiting(nas, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
        away.rename(site.nas())
        await _until_sealed_as_synced(engine, nas)
        assert not (await engine.job(nas)).waiting_on
    assert _status_at(site.at_nas(run)) == "synced"


async def test_a_seal_anew_that_failed_is_tried_again_whatever_its_job_meets_meanwhile(site: Site) -> None:
    run, nas, late = await _sealed_as_pending(site)
    (site.at_nas(run) / CREATION).unlink()
    (site.at_nas(run) / CREATION / "in the way").mkdir(parents=True)
    async with running_engine(site) as engine:
        await engine.until_sealed(late)
        await engine.until_waiting(nas, job_pb2.WAIT_CONDITION_OPERATOR)
        await engine.steer("SetJobPriority", nas, priority=3)
        shutil.rmtree(site.at_nas(run) / CREATION)
        # What happens to the run is a reason to look again before the minute is over.
        await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
        await _until_sealed_as_synced(engine, nas, overrides=1)
        assert not (await engine.job(nas)).waiting_on
    assert _status_at(site.at_nas(run)) == "synced"


async def test_a_seal_anew_waits_for_its_turn_and_says_so(site: Site) -> None:
    run, nas, late = await _sealed_as_pending(site)
    scope = {"equipment_id": EQUIPMENT, "reason": "service"}
    async with running_engine(site) as engine:
        await engine.equipment.PauseEquipment(equipment_service_pb2.PauseEquipmentRequest(**scope))
        other = site.make_run({f"{n}.tif": os.urandom(1_000_000) for n in range(20)}, leaf="Run_2026-04-17T14-33")
        others = [job.job_id for job in (await engine.enqueue(other)).jobs]
        for job_id, priority in ((late, 9), (others[0], 5), (others[1], -1)):
            await engine.steer("SetJobPriority", job_id, priority=priority)
        await engine.equipment.ResumeEquipment(equipment_service_pb2.ResumeEquipmentRequest(**scope))
        await engine.until_copying(others[0])
        (slot,) = (await engine.job(nas)).waiting_on
        assert slot.condition == job_pb2.WAIT_CONDITION_SLOT
        assert slot.detail == f"it is to be sealed; job {others[0]} of {EQUIPMENT} is in work"
        await engine.steer("SetJobPriority", nas, priority=1)
        await engine.equipment.PauseEquipment(equipment_service_pb2.PauseEquipmentRequest(**scope))
        await engine.until_waiting(nas, job_pb2.WAIT_CONDITION_EQUIPMENT_PAUSED)
        await engine.steer("CancelJob", others[0])
        await engine.equipment.ResumeEquipment(equipment_service_pb2.ResumeEquipmentRequest(**scope))
        await _until_sealed_as_synced(engine, nas)
    assert _status_at(site.at_nas(run)) == "synced"


async def test_overrides_of_a_sealed_run_and_what_revokes_them_reach_its_copy(engine: Engine) -> None:
    run = engine.site.make_run()
    job = await engine.bring(run)
    recorded = await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
    await _until_sealed_as_synced(engine, job.job_id, overrides=1)
    revoked = run_service_pb2.RevokeOverrideRequest(
        run=run, override_id=recorded.id, operator="asmith", reason="no longer"
    )
    await engine.runs.RevokeOverride(revoked)
    await _until_sealed_as_synced(engine, job.job_id, overrides=2)
    assert (engine.site.at_nas(run) / CREATION).read_bytes() == engine.site.creation_path(run).read_bytes()
    entries = engine.site.creation(run)["validation_overrides"]
    assert [entry.get("revokes") for entry in entries] == [None, recorded.id]


async def test_beside_a_copy_lies_no_receipt_but_its_own(site: Site) -> None:
    """The others' would be those of another manifest as soon as the run is amended where they can't be reached."""
    run, nas, late = await _sealed_as_pending(site)
    async with running_engine(site) as engine:
        await engine.until_sealed(late)
        await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
        for job_id in (nas, late):
            await _until_sealed_as_synced(engine, job_id, overrides=1)
    for name in ("nas", "late"):
        there = (site.at_nas(run, name) / CREATION).parent
        assert [path.name for path in there.glob("receipt.*")] == [f"receipt.{name}.json"]
    assert len(list(site.creation_path(run).parent.glob("receipt.*"))) == 2
