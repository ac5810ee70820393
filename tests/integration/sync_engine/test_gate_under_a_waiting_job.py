"""The gate over a job that waits: a file that is added keeps it closed, and putting things right opens it by itself."""

from __future__ import annotations

import pytest

from labferry.sync.v1 import equipment_service_pb2, finding_pb2, job_pb2
from tests.integration.sync_engine.running_engine import Engine, Site, running_engine, same_tree

GATE = job_pb2.WAIT_CONDITION_GATE
HOLD = {"equipment_id": "CONFOCAL_01", "reason": "laser service"}


async def _says(engine: Engine, job_id: str, rule: str) -> None:
    job = await engine.until(job_id, lambda u: any(rule in w.detail for w in u.job.waiting_on))
    assert [w.condition for w in job.waiting_on] == [GATE]


@pytest.mark.slow
async def test_each_file_that_is_added_while_it_waits_keeps_the_gate_closed(site: Site) -> None:
    run = site.make_run({"a.tif": b"pixels"})
    folder = site.local(run)
    async with running_engine(site) as engine:
        await engine.equipment.PauseEquipment(equipment_service_pb2.PauseEquipmentRequest(**HOLD))
        job_id = (await engine.enqueue(run)).job.job_id
        (folder / "{{ late }}.txt").write_bytes(b"left over")
        await engine.equipment.ResumeEquipment(equipment_service_pb2.ResumeEquipmentRequest(**HOLD))
        await _says(engine, job_id, "leftover_jinja_marker")
        await site.until_sync_status(run, "blocked_by_validation")
        (folder / "CON").write_bytes(b"a reserved name")
        # The override wakes the job; what was added since keeps it where it is.
        await engine.override(run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
        await _says(engine, job_id, "reserved_filesystem_name")
        assert (await engine.job(job_id)).attempt == 0
        assert not site.at_nas(run).exists()
        # Nobody tells the engine of this.
        (folder / "CON").unlink()
        job = await engine.until_sealed(job_id)
        assert (job.attempt, job.file_count) == (1, 2)
        same_tree(folder, site.at_nas(run))
        await site.until_sync_status(run, "synced")
