"""A run that was brought to one set of destinations, and is cleaned under another (SPEC §4, Cleanup)."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import Any

from cli.why import answers
from labferry.sync.v1 import job_pb2, run_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import EQUIPMENT, PATIENCE, Engine, Site, running_engine
from tests.integration.sync_engine.test_cleanup import CLEANED, VERIFIED, clean, data_files

SOON = {"enabled": True, "min_verify_passes": 1, "min_age_hours": 0}
ALREADY_SYNCED = sync_service_pb2.ENQUEUE_OUTCOME_ALREADY_SYNCED


def name_destinations(site: Site, *names: str) -> None:
    equipment = site.lab.settings["equipment"][0]
    equipment.pop("transport", None)
    for name in names:
        site.nas(destination=name).mkdir(parents=True, exist_ok=True)
    equipment["destinations"] = [
        {"name": name, "transport": {"type": "mounted", "path": str(site.nas(destination=name))}} for name in names
    ]


async def bring_to_all(engine: Engine, run: str) -> dict[str, str]:
    """By destination: the job."""
    jobs = (await engine.enqueue(run)).jobs
    for job in jobs:
        await engine.until_sealed(job.job_id)
    return {job.destination: job.job_id for job in jobs}


async def states(engine: Engine, jobs: dict[str, str]) -> dict[str, Any]:
    return {name: (await engine.job(job_id)).state for name, job_id in jobs.items()}


async def test_a_run_is_cleaned_at_the_destinations_that_are_configured_and_other_equipment_goes_on(site: Site) -> None:
    name_destinations(site, "nas", "late")
    run = site.make_run()
    async with running_engine(site) as engine:
        jobs = await bring_to_all(engine, run)
    name_destinations(site, "nas")
    site.lab.settings["nas_cleanup"] = SOON
    async with running_engine(site) as engine:
        await engine.until_state(jobs["nas"], CLEANED)
        assert data_files(site.local(run)) == set()
        assert len(data_files(site.at_nas(run, "late"))) == 2, "what isn't configured is left alone"
    site.equip("STEM_02")
    async with running_engine(site) as engine:
        # The reaper begins with what it finds, and may have been asked at once.
        assert (await clean(engine, run)).cleaned
        await engine.bring(site.make_run(equipment="STEM_02"))
        assert await states(engine, jobs) == {"nas": CLEANED, "late": VERIFIED}
        found = await engine.run(run)
        assert found.sync_status == run_pb2.SYNC_STATUS_CLEANED
        said = [(a.destination, a.condition, a.detail, a.needs_somebody) for a in answers(found, [])]
        done = ("done", "2 files are verified and sealed; the local data was deleted", False)
        assert sorted(said) == [("late", *done), ("nas", *done)]
        assert (await engine.enqueue(run)).outcome == ALREADY_SYNCED
        assert (await engine.event_types(f"run-{run}")).count("sync.run.cleanup_begun.v1") == 1
    name_destinations(site, "nas", "late")
    (site.local(run) / "later.tif").write_bytes(b"later")
    async with running_engine(site) as engine:
        answer = await clean(engine, run)
        assert (answer.cleaned, [r.path for r in answer.remaining]) == (False, ["later.tif"])
        (site.local(run) / "later.tif").unlink()
        answer = await clean(engine, run)
        assert (answer.cleaned, answer.file_count) == (True, 0)
        assert await states(engine, jobs) == {"nas": CLEANED, "late": VERIFIED}
        assert (await engine.enqueue(run)).outcome == ALREADY_SYNCED


async def test_a_run_that_was_queued_again_for_a_renamed_destination(site: Site) -> None:
    run = site.make_run()
    async with running_engine(site) as engine:
        before = await engine.bring(run)
    assert before.destination == "default"
    equipment = site.lab.settings["equipment"][0]
    equipment["destinations"] = [{"name": "nas", "transport": equipment.pop("transport")}]
    site.lab.settings["nas_cleanup"] = SOON
    async with running_engine(site) as engine:
        jobs = await bring_to_all(engine, run) | {"default": before.job_id}
        await engine.until_state(jobs["nas"], CLEANED)
    async with running_engine(site) as engine:
        assert (await clean(engine, run)).cleaned
        await engine.bring(site.make_run(leaf="Run_2026-04-17T16-00"))
        assert await states(engine, jobs) == {"nas": CLEANED, "default": VERIFIED}
        assert [j.equipment_id for j in (await engine.run(run)).jobs] == [EQUIPMENT] * 2


async def test_nothing_is_cleaned_before_a_destination_that_was_taken_out_has_what_is_on_its_way(site: Site) -> None:
    name_destinations(site, "nas", "late")
    run = site.make_run()
    (site.nas(destination="late")).rmdir()
    async with running_engine(site) as engine:
        job = (await engine.enqueue(run)).jobs[0]
        await engine.until_sealed(job.job_id)
    name_destinations(site, "nas")
    site.lab.settings["nas_cleanup"] = SOON
    async with running_engine(site) as engine:
        answer = await clean(engine, run)
        assert not answer.cleaned
        (said,) = [i.detail for i in answer.interlocks if i.name == "copies_verified"]
        assert said == "without a verified copy: late"
        assert (await engine.job(job.job_id)).state == job_pb2.JOB_STATE_VERIFIED


async def test_a_run_that_waited_for_a_destination_that_is_taken_out_is_synced_once_it_is_queued_again(
    site: Site,
) -> None:
    name_destinations(site, "nas", "late")
    site.nas(destination="late").rename(site.lab.folder / "away")
    run = site.make_run()
    async with running_engine(site) as engine:
        nas, late = (await engine.enqueue(run)).jobs
        await engine.until_sealed(nas.job_id)
        await engine.until_waiting(late.job_id, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
        await engine.steer("CancelJob", late.job_id)
    name_destinations(site, "nas")
    async with running_engine(site) as engine:
        assert (await engine.enqueue(run)).outcome == ALREADY_SYNCED
        assert (await engine.run(run)).sync_status == run_pb2.SYNC_STATUS_SYNCED
        at_nas = site.at_nas(run, "nas") / ".exlab-wizard/creation.json"
        async with asyncio.timeout(PATIENCE):
            while json.loads(at_nas.read_text(encoding="utf-8")).get("sync_status") != "synced":
                await asyncio.sleep(0.05)
        assert (await engine.enqueue(run)).outcome == ALREADY_SYNCED
        changes = [t for t in await engine.event_types(f"run-{run}") if t == "sync.run.sync_status_changed.v1"]
        assert len(changes) == 2, "pending, then synced"


async def test_what_a_cleanup_waited_for_at_a_destination_is_over_when_it_goes_on_without_that(site: Site) -> None:
    name_destinations(site, "nas", "late")
    run = site.make_run()
    site.lab.settings["nas_cleanup"] = {**SOON, "min_age_hours": 1000}
    async with running_engine(site) as engine:
        jobs = await bring_to_all(engine, run)
        assert not (await clean(engine, run)).cleaned
        await engine.until_waiting(jobs["late"], job_pb2.WAIT_CONDITION_CLEANUP_INTERLOCK)
    name_destinations(site, "nas")
    site.lab.settings["nas_cleanup"] = SOON
    async with running_engine(site) as engine:
        await engine.until_state(jobs["nas"], CLEANED)
        found = await engine.run(run)
        assert {a.condition for a in answers(found, [])} == {"done"}
        assert [list(job.waiting_on) for job in found.jobs] == [[], []]


async def test_a_destination_that_is_renamed_in_the_middle_of_a_cleanup_is_to_get_its_name_back(site: Site) -> None:
    name_destinations(site, "nas")
    run = site.make_run({f"{number:02}.tif": b"pixels" for number in range(40)})
    async with running_engine(site) as engine:
        await bring_to_all(engine, run)
    site.lab.settings["nas_cleanup"] = SOON
    stays = str(site.local(run) / "07.tif")
    subprocess.run(["chattr", "+i", stays], check=True)
    try:
        async with running_engine(site) as engine:
            assert [r.path for r in (await clean(engine, run)).remaining] == ["07.tif"]
    finally:
        subprocess.run(["chattr", "-i", stays], check=True)
    as_it_was = site.lab.settings["equipment"][0]["destinations"]
    name_destinations(site, "another")
    async with running_engine(site) as engine:
        (said,) = [i.detail for i in (await clean(engine, run)).interlocks if i.name == "copies_verified"]
        assert said.startswith("without a verified copy: another; a part of the run was deleted here before it was ")
        assert "give a renamed destination its old name back" in said
    site.lab.settings["equipment"][0]["destinations"] = as_it_was
    async with running_engine(site) as engine:
        assert (await clean(engine, run)).cleaned
