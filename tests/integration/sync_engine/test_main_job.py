"""The main job: from the gate to the seal, through the gRPC API alone."""

from __future__ import annotations

import os

from labferry.sync.v1 import finding_pb2, job_pb2, run_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import (
    BLOCKED,
    EQUIPMENT,
    QUEUED,
    Engine,
    Site,
    new_site,
    running_engine,
    same_tree,
    sha256sum_agrees,
)

JINJA = finding_pb2.RULE_LEFTOVER_JINJA_MARKER


async def test_a_run_is_refused_permitted_copied_verified_and_sealed(engine: Engine) -> None:
    site = engine.site
    run = site.make_run({"a.tif": b"x" * 100_000, "sub/{{ operator }}.txt": b"note", "empty.log": b""})
    (site.local(run) / "empty folder").mkdir()
    (site.local(run) / "link").symlink_to("a.tif")

    refused = await engine.enqueue(run)
    assert refused.outcome == BLOCKED
    assert not refused.jobs
    (finding,) = refused.blocking_findings
    assert (finding.rule, finding.matched_token) == (JINJA, "{{ operator }}")
    assert finding.offending_path == f"{run}/sub/{{{{ operator }}}}.txt"
    assert site.creation(run)["sync_status"] == "blocked_by_validation"
    assert not site.at_nas(run).exists()

    override = await engine.override(run, JINJA)
    assert override.active
    (entry,) = site.creation(run)["validation_overrides"]
    assert entry["id"] == override.id
    assert entry["problem_class"] == "leftover_jinja_marker"

    queued = await engine.enqueue(run)
    assert queued.outcome == QUEUED
    job = await engine.until_sealed(queued.job.job_id)
    assert job.state == job_pb2.JOB_STATE_VERIFIED
    assert (job.file_count, job.verify_passes, job.attempt) == (3, 1, 1)
    same_tree(site.local(run), site.at_nas(run))
    assert sha256sum_agrees(site.at_nas(run)) == 3
    assert sha256sum_agrees(site.local(run)) == 3
    shown = await engine.run(run)
    assert shown.sync_status == run_pb2.SYNC_STATUS_SYNCED
    at_nas = site.at_nas(run) / ".exlab-wizard" / "creation.json"
    assert at_nas.read_bytes() == site.creation_path(run).read_bytes()
    assert site.creation(run)["sync_status"] == "synced"
    assert not list((site.nas() / ".labferry-incoming").iterdir())


async def test_the_cache_files_above_the_run_arrive_with_it_and_locks_do_not(engine: Engine) -> None:
    site = engine.site
    run = site.make_run()
    equipment_cache = site.local_root / EQUIPMENT / ".exlab-wizard"
    equipment_cache.mkdir()
    (equipment_cache / "equipment.json").write_text('{"schema_version":"1.0"}')
    (equipment_cache / "equipment.json.lock").touch()
    (site.local(run) / ".exlab-wizard" / "wizard.host.log").write_text("line\n")
    await engine.bring(run)
    assert (site.nas() / ".exlab-wizard" / "equipment.json").read_text() == '{"schema_version":"1.0"}'
    assert (site.at_nas(run) / ".exlab-wizard" / "wizard.host.log").read_text() == "line\n"
    assert not list(site.nas().rglob("*.lock"))


async def test_queueing_again_gives_the_same_job_and_then_already_synced(engine: Engine) -> None:
    site = engine.site
    run = site.make_run()
    first = await engine.enqueue(run)
    await engine.until_sealed(first.job.job_id)
    again = await engine.enqueue(run)
    assert again.outcome == sync_service_pb2.ENQUEUE_OUTCOME_ALREADY_SYNCED
    assert [j.job_id for j in again.jobs] == [first.job.job_id]
    os.utime(site.local(run) / "a.tif")
    touched = await engine.enqueue(run)
    assert touched.outcome == sync_service_pb2.ENQUEUE_OUTCOME_ALREADY_SYNCED


async def test_a_verified_file_that_changed_or_vanished_blocks_and_changes_nothing(engine: Engine) -> None:
    site = engine.site
    run = site.make_run()
    await engine.bring(run)
    (site.local(run) / "a.tif").write_bytes(b"PIXELS")
    (site.local(run) / "sub" / "b.csv").unlink()
    answer = await engine.enqueue(run)
    assert answer.outcome == BLOCKED
    assert {f.rule for f in answer.blocking_findings} == {finding_pb2.RULE_VERIFIED_FILE_CHANGED}
    assert {f.offending_path.removeprefix(run) for f in answer.blocking_findings} == {"/a.tif", "/sub/b.csv"}
    assert (await engine.run(run)).sync_status == run_pb2.SYNC_STATUS_SYNCED
    assert (site.at_nas(run) / "a.tif").read_bytes() == b"pixels"


async def test_several_destinations_are_independent_and_synced_waits_for_every_required_one() -> None:
    async with new_site() as site:
        second = site.lab.folder / "second" / EQUIPMENT
        destinations = [
            {"name": "nas", "transport": {"type": "mounted", "path": str(site.nas())}},
            {"name": "second", "transport": {"type": "mounted", "path": str(second)}},
        ]
        site.equip(destinations=destinations, max_parallel=2)
        async with running_engine(site) as engine:
            run = site.make_run()
            answer = await engine.enqueue(run)
            assert [j.destination for j in answer.jobs] == ["nas", "second"]
            here, there = (j.job_id for j in answer.jobs)
            await engine.until_sealed(here)
            await engine.until_waiting(there, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
            assert (await engine.run(run)).sync_status == run_pb2.SYNC_STATUS_PENDING
            assert site.creation(run).get("sync_status", "pending") == "pending"

            second.mkdir(parents=True)
            await engine.until_sealed(there)
            assert (await engine.run(run)).sync_status == run_pb2.SYNC_STATUS_SYNCED
            events = await engine.event_types(f"job-{here}")
            while events.count("sync.job.sealed.v1") < 2:
                events = await engine.event_types(f"job-{here}")
            for destination in ("nas", "second"):
                same_tree(site.local(run), site.at_nas(run, destination))
                copy = site.at_nas(run, destination) / ".exlab-wizard" / "creation.json"
                assert copy.read_bytes() == site.creation_path(run).read_bytes()


async def test_runs_of_two_instruments_do_not_meet() -> None:
    async with new_site() as site:
        site.equip()
        site.equip("SCOPE_02")
        async with running_engine(site) as engine:
            runs = [site.make_run({"f": e.encode()}, equipment=e) for e in (EQUIPMENT, "SCOPE_02")]
            for run in runs:
                await engine.bring(run)
                same_tree(site.local(run), site.at_nas(run))


async def test_a_run_without_a_file_is_never_called_verified(engine: Engine, site: Site) -> None:
    run = site.make_run({})
    answer = await engine.enqueue(run)
    job = await engine.until_failed(answer.job.job_id)
    assert job.failure.kind == job_pb2.FAILURE_KIND_NOTHING_TO_VERIFY
    await site.until_sync_status(run, "failed")
