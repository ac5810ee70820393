"""What was accepted counts once: what is proven since is what later changes are measured by (SPEC §4)."""

from __future__ import annotations

import hashlib
import os

import pytest

from labferry.sync.v1 import equipment_service_pb2, finding_pb2, job_pb2
from tests.integration.sync_engine.running_engine import (
    BLOCKED,
    EQUIPMENT,
    Engine,
    Site,
    running_engine,
    same_tree,
    sha256sum_agrees,
)
from tests.integration.sync_engine.test_amendments import accept, superseded
from tests.integration.sync_engine.test_cleanup import verify
from tests.integration.sync_engine.test_cleanup_changed_destinations import name_destinations


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def _without_b(engine: Engine) -> str:
    """A run whose `b.tif` was proven, and removed with an operator's consent."""
    site = engine.site
    run = site.make_run({"a.tif": b"pixels", "b.tif": b"b"})
    await engine.bring(run)
    (site.local(run) / "b.tif").unlink()
    await accept(engine, run, "b.tif", b"b", None)
    await engine.bring(run)
    assert not (site.at_nas(run) / "b.tif").exists()
    return run


@pytest.mark.parametrize("content", [b"b", b"another b"])
async def test_a_file_that_was_removed_and_is_put_back_is_an_added_one(engine: Engine, content: bytes) -> None:
    site = engine.site
    run = await _without_b(engine)
    (site.local(run) / "b.tif").write_bytes(content)
    job = await engine.bring(run)
    assert job.amendment == 2
    same_tree(site.local(run), site.at_nas(run))
    assert sha256sum_agrees(site.at_nas(run)) == 2


async def test_what_somebody_put_in_the_place_of_a_removed_file_is_asked_about(engine: Engine) -> None:
    site = engine.site
    run = await _without_b(engine)
    (site.local(run) / "b.tif").write_bytes(b"b")
    (site.at_nas(run) / "b.tif").write_bytes(b"theirs")
    job_id = (await engine.enqueue(run)).job.job_id
    (met,) = (await engine.until_failed(job_id)).failure.differing_files
    assert (met.path, met.old_sha256, met.new_sha256) == ("b.tif", _sha(b"theirs"), _sha(b"b"))
    assert (site.at_nas(run) / "b.tif").read_bytes() == b"theirs"
    await accept(engine, run, "b.tif", b"theirs", b"b")
    await engine.until_sealed(job_id)
    same_tree(site.local(run), site.at_nas(run))
    kept = {p.read_bytes() for p in (site.nas() / ".labferry-superseded").rglob("b.tif")}
    assert kept == {b"b", b"theirs"}


async def test_a_job_is_not_armed_again_by_what_was_accepted_for_an_earlier_one(engine: Engine) -> None:
    site = engine.site
    run = site.make_run({"a.tif": b"a", "b.tif": b"b"})
    here, there = site.local(run), site.at_nas(run)
    there.mkdir(parents=True)
    (there / "b.tif").write_bytes(b"theirs")
    first = await engine.until_failed((await engine.enqueue(run)).job.job_id)
    await accept(engine, run, "b.tif", b"theirs", b"b")
    await engine.until_sealed(first.job_id)
    (here / "b.tif").unlink()
    await accept(engine, run, "b.tif", b"b", None)
    await engine.bring(run)
    for name in ("b.tif", "c.tif"):
        (here / name).write_bytes(b"b")
        (there / name).write_bytes(b"theirs")
    job_id = (await engine.enqueue(run)).job.job_id
    assert len((await engine.until_failed(job_id)).failure.differing_files) == 2
    assert await accept(engine, run, "c.tif", b"theirs", b"b") == []
    assert [job.job_id for job in await accept(engine, run, "b.tif", b"theirs", b"b")] == [job_id]
    await engine.until_sealed(job_id)
    same_tree(here, there)


async def test_a_file_that_changes_to_what_was_accepted_once_is_asked_about_again(engine: Engine) -> None:
    site = engine.site
    run = site.make_run({"a.tif": b"A", "b.tif": b"b"})
    await engine.bring(run)
    for old, new in ((b"A", b"B"), (b"B", b"A"), (b"A", b"B")):
        (site.local(run) / "a.tif").write_bytes(new)
        blocked = await engine.enqueue(run)
        assert blocked.outcome == BLOCKED, f"{old!r} to {new!r}"
        assert [f.rule for f in blocked.blocking_findings] == [finding_pb2.RULE_VERIFIED_FILE_CHANGED]
        await accept(engine, run, "a.tif", old, new)
        await engine.bring(run)
        assert (site.at_nas(run) / "a.tif").read_bytes() == new


async def test_what_was_accepted_of_a_file_that_is_gone_from_the_destination_stops_nothing(engine: Engine) -> None:
    site = engine.site
    run = site.make_run({"a.tif": b"ours", "b.tif": b"b"})
    site.at_nas(run).mkdir(parents=True)
    (site.at_nas(run) / "a.tif").write_bytes(b"theirs")
    job_id = (await engine.enqueue(run)).job.job_id
    await engine.until_failed(job_id)
    (site.local(run) / "a.tif").write_bytes(b"ours, again")
    await accept(engine, run, "a.tif", b"theirs", b"ours")
    await engine.until(
        job_id,
        lambda u: (
            u.job.failure.message.startswith("the run no longer holds") and u.job.state == job_pb2.JOB_STATE_FAILED
        ),
    )
    assert (site.at_nas(run) / "a.tif").read_bytes() == b"theirs"
    (site.at_nas(run) / "a.tif").unlink()
    await engine.steer("RetryJob", job_id)
    await engine.until_sealed(job_id)
    same_tree(site.local(run), site.at_nas(run))


async def test_a_change_that_is_taken_back_after_it_landed_and_before_it_is_proven_is_undone_there(
    site: Site,
) -> None:
    site.lab.settings["equipment"].clear()
    site.equip(transport={"bandwidth": {"upload_mbps": 16}})
    run = site.make_run({"a.tif": b"old"})
    here, there = site.local(run), site.at_nas(run)
    async with running_engine(site) as engine:
        await engine.bring(run)
        (here / "a.tif").write_bytes(b"new")
        await accept(engine, run, "a.tif", b"old", b"new")
        # As many as land together, and one that lasts.
        for number in range(256):
            (here / f"b{number}.tif").write_bytes(b"late")
        (here / "z.tif").write_bytes(os.urandom(24_000_000))
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until(job_id, lambda _: bool(superseded(site.nas())) and (there / "a.tif").exists())
        await engine.steer("PauseJob", job_id)
        assert (there / "a.tif").read_bytes() == b"new"
        (here / "a.tif").write_bytes(b"old")
        (here / "z.tif").unlink()
        await engine.steer("ResumeJob", job_id)
        job = await engine.until(job_id, lambda u: u.job.sealed or u.job.HasField("failure"))
        assert job.sealed, job.failure
    same_tree(here, there)
    assert sha256sum_agrees(there) == 257
    assert superseded(site.nas()) == {"a.tif": b"old"}


async def test_a_file_that_was_put_back_and_is_lost_there_counts_as_lost_whatever_was_accepted_once(
    engine: Engine,
) -> None:
    site = engine.site
    run = await _without_b(engine)
    (site.local(run) / "b.tif").write_bytes(b"b")
    await engine.bring(run)
    (site.local(run) / "late.tif").write_bytes(b"late")
    (site.at_nas(run) / "late.tif").write_bytes(b"theirs")
    job = await engine.until_failed((await engine.enqueue(run)).job.job_id)
    assert job.failure.kind == job_pb2.FAILURE_KIND_DESTINATION_FILE_DIFFERS
    (site.at_nas(run) / "late.tif").unlink()
    assert await verify(engine, run)
    (site.at_nas(run) / "b.tif").unlink()
    assert not await verify(engine, run)


async def test_two_destinations_may_each_hold_another_file_that_is_accepted_to_be_replaced(site: Site) -> None:
    name_destinations(site, "near", "far")
    run = site.make_run({"a.tif": b"ours", "b.tif": b"b"})
    for place in ("near", "far"):
        site.at_nas(run, place).mkdir(parents=True)
        (site.at_nas(run, place) / "a.tif").write_bytes(place.encode())
    async with running_engine(site) as engine:
        near, far = (await engine.enqueue(run)).jobs
        for job in (near, far):
            await engine.until_failed(job.job_id)
        held = {"equipment_id": EQUIPMENT, "reason": "until both are accepted"}
        await engine.equipment.PauseEquipment(equipment_service_pb2.PauseEquipmentRequest(**held))
        for place in ("near", "far"):
            await accept(engine, run, "a.tif", place.encode(), b"ours")
        await engine.equipment.ResumeEquipment(equipment_service_pb2.ResumeEquipmentRequest(**held))
        for job in (near, far):
            await engine.until_sealed(job.job_id)
        assert {sha256sum_agrees(site.at_nas(run, place)) for place in ("near", "far")} == {2}
