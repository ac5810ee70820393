"""Overrides: events first, the file second; entries of other programs are imported, never dropped (SPEC §2)."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from labferry.sync.v1 import finding_pb2, job_pb2, run_service_pb2
from tests.integration.sync_engine.running_engine import (
    BLOCKED,
    QUEUED,
    Engine,
    Site,
    creation_document,
    running_engine,
    start_engine,
)

JINJA = finding_pb2.RULE_LEFTOVER_JINJA_MARKER
BLOCKED_FILES = {"{{ x }}.txt": b"1"}

FOREIGN = {
    "id": "11111111-1111-4111-8111-111111111111",
    "problem_class": "leftover_jinja_marker",
    "operator": "bjones",
    "recorded_at": "2026-04-17T15:00:00Z",
    "reason": "seen at the microscope",
    "revoked": False,
    "expires_at": None,
    "colour": {"kept": ["at", "every", "depth"]},
}


async def test_an_entry_that_the_wizard_wrote_opens_the_gate_and_is_imported_once(engine: Engine) -> None:
    site = engine.site
    run = site.make_run(BLOCKED_FILES, creation=creation_document(validation_overrides=[FOREIGN]))
    assert (await engine.enqueue(run)).outcome == QUEUED
    await engine.enqueue(run)
    (imported,) = await engine.overrides(run)
    assert (imported.id, imported.imported, imported.active) == (FOREIGN["id"], True, True)
    types = await engine.event_types(f"run-{run}")
    assert types.count("sync.run.override_imported.v1") == 1
    assert site.creation(run)["validation_overrides"] == [FOREIGN]


async def test_entries_without_an_id_get_one_in_the_file_first(engine: Engine) -> None:
    anonymous = {k: v for k, v in FOREIGN.items() if k != "id"}
    run = engine.site.make_run(BLOCKED_FILES, creation=creation_document(validation_overrides=[anonymous]))
    assert (await engine.enqueue(run)).outcome == QUEUED
    (entry,) = engine.site.creation(run)["validation_overrides"]
    (listed,) = await engine.overrides(run)
    assert entry["id"] == listed.id
    assert {k: v for k, v in entry.items() if k != "id"} == anonymous


async def test_log_and_file_keep_one_order_with_two_writers(engine: Engine) -> None:
    site = engine.site
    run = site.make_run(BLOCKED_FILES)
    await engine.override(run, JINJA, reason="first")
    document = site.creation(run)
    document["validation_overrides"].append(FOREIGN)
    site.write_creation(run, document)
    await engine.override(run, JINJA, reason="third")
    in_file = [e["id"] for e in site.creation(run)["validation_overrides"]]
    assert in_file == [o.id for o in await engine.overrides(run)]
    assert in_file[1] == FOREIGN["id"]


async def test_a_lost_array_is_rebuilt_from_the_log_at_the_next_start(site: Site) -> None:
    async with running_engine(site) as engine:
        run = site.make_run(BLOCKED_FILES, creation=creation_document(validation_overrides=[FOREIGN]))
        await engine.override(run, JINJA, reason="ours")
        before = site.creation(run)["validation_overrides"]
        assert len(before) == 2
    site.write_creation(run, creation_document())
    async with running_engine(site) as engine:
        await _until_overrides(site, run, before)
        assert [o.id for o in await engine.overrides(run)] == [e["id"] for e in before]


async def _until_overrides(site: Site, run: str, wanted: list[object]) -> None:
    async with asyncio.timeout(30):
        while site.creation(run).get("validation_overrides") != wanted:
            await asyncio.sleep(0.02)


async def test_an_override_is_in_the_log_even_if_the_engine_dies_before_the_file(site: Site) -> None:
    engine = await start_engine(site)
    run = site.make_run(BLOCKED_FILES)
    await engine.override(run, JINJA, request_id="once")
    await engine.kill()
    document = site.creation(run)
    document["validation_overrides"] = []
    site.write_creation(run, document)
    async with running_engine(site) as engine:
        again = await engine.override(run, JINJA, request_id="once")
        (listed,) = await engine.overrides(run)
        assert listed.id == again.id
        await engine.enqueue(run)
        assert [e["id"] for e in site.creation(run)["validation_overrides"]] == [again.id]


async def test_revoking_closes_the_gate_for_the_next_enqueue(engine: Engine) -> None:
    run = engine.site.make_run(BLOCKED_FILES)
    recorded = await engine.override(run, JINJA)
    await engine.runs.RevokeOverride(
        run_service_pb2.RevokeOverrideRequest(
            run=run, override_id=recorded.id, operator="asmith", reason="not meant after all"
        )
    )
    assert (await engine.enqueue(run)).outcome == BLOCKED
    first, tombstone = engine.site.creation(run)["validation_overrides"]
    assert (tombstone["revokes"], tombstone["revoked"]) == (first["id"], True)
    assert [o.active for o in await engine.overrides(run)] == [False, False]


async def test_expiry_and_revocation_stop_a_running_transfer_and_a_new_override_lets_it_go_on(site: Site) -> None:
    site.lab.settings["equipment"].clear()
    site.equip(transport={"bandwidth": {"upload_mbps": 80}})
    async with running_engine(site) as engine:
        files = {**BLOCKED_FILES, **{f"f{n:02}": bytes(1 << 20) for n in range(70)}}
        run = site.make_run(files)
        expires = Timestamp()
        expires.FromDatetime(datetime.now(UTC) + timedelta(seconds=4))
        await engine.override(run, JINJA, expires_at=expires)
        job_id = (await engine.enqueue(run)).job.job_id
        stopped = await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_GATE)
        assert stopped.state == job_pb2.JOB_STATE_QUEUED
        assert stopped.waiting_on[0].who_can_clear == "operator"
        assert not (site.at_nas(run) / ".exlab-wizard" / "checksums.sha256").exists()
        second = await engine.override(run, JINJA)
        await engine.until(job_id, lambda u: u.progress.bytes_done > 0)
        await engine.runs.RevokeOverride(
            run_service_pb2.RevokeOverrideRequest(run=run, override_id=second.id, operator="a", reason="stop")
        )
        await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_GATE)
        await engine.override(run, JINJA)
        await engine.until_sealed(job_id)
        assert json.loads(site.creation_path(run).read_text())["sync_status"] == "synced"


async def test_as_of_shows_overrides_as_they_were(engine: Engine) -> None:
    run = engine.site.make_run(BLOCKED_FILES)
    recorded = await engine.override(run, JINJA)
    position = (await engine.events())[-1].position
    await engine.runs.RevokeOverride(
        run_service_pb2.RevokeOverrideRequest(run=run, override_id=recorded.id, operator="a", reason="b")
    )
    then = run_service_pb2.ListOverridesRequest(run=run)
    then.as_of.position = position
    (as_it_was,) = (await engine.runs.ListOverrides(then)).overrides
    assert as_it_was.active
    then.as_of.position = 1
    assert not (await engine.runs.ListOverrides(then)).overrides


async def test_a_name_that_appears_during_the_copy_closes_the_gate_before_the_manifest(site: Site) -> None:
    site.lab.settings["equipment"].clear()
    site.equip(transport={"bandwidth": {"upload_mbps": 160}})
    async with running_engine(site) as engine:
        run = site.make_run({f"f{n:02}": bytes(1 << 20) for n in range(40)})
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until(job_id, lambda u: u.progress.bytes_done > 0)
        (site.local(run) / "{{ late }}.txt").write_bytes(b"left over")
        waiting = await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_GATE)
        assert not waiting.HasField("manifest_sha256")
        await site.until_sync_status(run, "blocked_by_validation")
        await engine.override(run, JINJA)
        job = await engine.until_sealed(job_id)
        assert job.file_count == 41
        assert (site.at_nas(run) / "{{ late }}.txt").read_bytes() == b"left over"


async def test_a_job_whose_override_is_gone_when_its_turn_comes_is_not_begun(site: Site) -> None:
    site.lab.settings["equipment"].clear()
    site.equip(transport={"bandwidth": {"upload_mbps": 160}})
    async with running_engine(site) as engine:
        first = site.make_run({f"f{n:02}": bytes(1 << 20) for n in range(40)})
        second = site.make_run(BLOCKED_FILES, leaf="Run_2026-04-17T15-00")
        recorded = await engine.override(second, JINJA)
        ahead = (await engine.enqueue(first)).job.job_id
        behind = (await engine.enqueue(second)).job.job_id
        slot = await engine.until_waiting(behind, job_pb2.WAIT_CONDITION_SLOT)
        assert slot.attempt == 0
        await engine.runs.RevokeOverride(
            run_service_pb2.RevokeOverrideRequest(run=second, override_id=recorded.id, operator="a", reason="b")
        )
        waiting = await engine.until_waiting(behind, job_pb2.WAIT_CONDITION_GATE)
        assert waiting.attempt == 0
        await engine.until_sealed(ahead)
        assert not site.at_nas(second).exists()
