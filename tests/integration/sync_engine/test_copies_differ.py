"""What came or went here between one destination and the next: told, and each copy keeps the manifest of its own."""

from __future__ import annotations

import os

from labferry.sync.v1 import equipment_service_pb2, finding_pb2, sync_service_pb2
from libs.run_tree.receipt import read_receipt
from libs.run_tree.receipt_check import check_run
from tests.integration.sync_engine.running_engine import EQUIPMENT, Site, running_engine, sha256sum_agrees
from tests.integration.sync_engine.test_cleanup import ALLOWED, data_files, until_cleaned, verify
from tests.integration.sync_engine.test_problems import _problems as problems


async def test_destinations_that_hold_different_files_are_told_and_each_keeps_its_own_manifest(site: Site) -> None:
    site.lab.settings["nas_cleanup"] = {**ALLOWED, "retain_cache": False}
    site.lab.settings["equipment"].clear()
    for name in ("nas", "late"):
        site.nas(destination=name).mkdir(parents=True, exist_ok=True)
    places = {name: {"type": "mounted", "path": str(site.nas(destination=name))} for name in ("nas", "late")}
    site.equip(destinations=[{"name": name, "transport": transport} for name, transport in places.items()])
    async with running_engine(site) as engine:
        run = site.make_run({"a.tif": b"pixels", "b.csv": b"12", "c.tmp": b"cc"})
        await engine.equipment.PauseEquipment(_pause())
        nas, late = (job.job_id for job in (await engine.enqueue(run)).jobs)
        await engine.steer("PauseJob", late)
        await engine.equipment.ResumeEquipment(_resume())
        await engine.until_sealed(nas)
        os.unlink(site.local(run) / "c.tmp")
        assert await problems(engine, run=run) == []
        await engine.steer("ResumeJob", late)
        await engine.until_sealed(late)
        (finding,) = await problems(engine, run=run)
        assert finding.rule == finding_pb2.RULE_COPIES_DIFFER
        assert "nas 3 files of 10 bytes, late 2 files of 8 bytes" in finding.rule_detail
        assert await verify(engine, run)
        for job_id in (nas, late):
            await until_cleaned(engine, job_id)
        assert data_files(site.local(run)) == set()
        for name, count in (("nas", 3), ("late", 2)):
            assert sha256sum_agrees(site.at_nas(run, name)) == count
            answer = await engine.sync.GetReceipt(sync_service_pb2.GetReceiptRequest(run=run, destination=name))
            assert check_run(read_receipt(answer.content).receipt, site.at_nas(run, name)).wrong == []
        assert await problems(engine, run=run) == []


def _pause() -> equipment_service_pb2.PauseEquipmentRequest:
    return equipment_service_pb2.PauseEquipmentRequest(equipment_id=EQUIPMENT, reason="laser service")


def _resume() -> equipment_service_pb2.ResumeEquipmentRequest:
    return equipment_service_pb2.ResumeEquipmentRequest(equipment_id=EQUIPMENT, reason="done")
