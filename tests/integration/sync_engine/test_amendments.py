"""What changed since a run was verified: added files are an amendment, changed ones wait for AcceptChange (SPEC §4)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import grpc

from cli.why import answers
from labferry.sync.v1 import finding_pb2, job_pb2, problem_service_pb2, sync_service_pb2
from libs.run_tree.receipt import read_receipt
from libs.run_tree.receipt_check import check_run
from tests.integration.sync_engine.running_engine import (
    BLOCKED,
    QUEUED,
    Engine,
    Site,
    running_engine,
    same_tree,
    sha256sum_agrees,
)
from tests.integration.sync_engine.test_bad_input import PRECONDITION, refused

ALREADY_SYNCED = sync_service_pb2.ENQUEUE_OUTCOME_ALREADY_SYNCED


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def superseded(nas: Path) -> dict[str, bytes]:
    """Content of what was kept beside the data, by path relative to the run."""
    kept = nas / ".labferry-superseded"
    return {p.name: p.read_bytes() for p in kept.rglob("*") if p.is_file()} if kept.exists() else {}


async def accept(engine: Engine, run: str, path: str, old: bytes, new: bytes | None, **fields: Any) -> list[Any]:
    answer = await engine.sync.AcceptChange(
        sync_service_pb2.AcceptChangeRequest(
            run=run,
            path=path,
            old_sha256=_sha(old),
            new_sha256="" if new is None else _sha(new),
            operator="asmith",
            reason="recalibrated",
            **fields,
        )
    )
    return list(answer.rearmed_jobs)


async def test_files_added_since_become_an_amendment_and_what_was_proven_is_not_touched(engine: Engine) -> None:
    site = engine.site
    run = site.make_run()
    first = await engine.bring(run)
    assert (await engine.enqueue(run)).outcome == ALREADY_SYNCED
    inode = (site.at_nas(run) / "a.tif").stat().st_ino
    (site.local(run) / "late.tif").write_bytes(b"late")
    answer = await engine.enqueue(run)
    assert answer.outcome == QUEUED
    assert (answer.job.amendment, answer.job.amends_job_id) == (1, first.job_id)
    amended = await engine.until_sealed(answer.job.job_id)
    assert amended.file_count == 3
    same_tree(site.local(run), site.at_nas(run))
    assert (site.at_nas(run) / "a.tif").stat().st_ino == inode
    assert sha256sum_agrees(site.at_nas(run)) == 3
    await site.until_sync_status(run, "synced")
    statuses = [e.type for e in await engine.events() if e.type == "sync.run.sync_status_changed.v1"]
    assert len(statuses) == 4, "pending, synced, pending again with the amendment, synced"
    assert (await engine.event_types(f"job-{first.job_id}")).count("sync.job.sealed.v1") == 1
    landed = [e for e in await engine.events() if e.stream == f"job-{amended.job_id}" and "landing" in e.type]
    assert len(landed) == 1
    (site.local(run) / "later still.tif").write_bytes(b"!")
    third = (await engine.enqueue(run)).job
    assert (third.amendment, third.amends_job_id) == (2, amended.job_id)
    await engine.until_sealed(third.job_id)
    assert sha256sum_agrees(site.at_nas(run)) == 4


async def test_a_cancelled_amendment_takes_back_nothing_that_was_proven(engine: Engine) -> None:
    site = engine.site
    run = site.make_run()
    first = await engine.bring(run)
    (site.local(run) / "late.tif").write_bytes(b"late")
    aside = site.nas().with_name("away")
    site.nas().rename(aside)
    amended = (await engine.enqueue(run)).job.job_id
    await engine.until_waiting(amended, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
    await engine.steer("CancelJob", amended)
    aside.rename(site.nas())
    kept = (site.local(run) / "a.tif").read_bytes()
    (site.local(run) / "a.tif").unlink()
    blocked = await engine.enqueue(run)
    assert blocked.outcome == BLOCKED
    assert blocked.blocking_findings[0].rule == finding_pb2.RULE_VERIFIED_FILE_CHANGED
    (site.local(run) / "a.tif").write_bytes(kept)
    answer = await engine.enqueue(run)
    assert (answer.job.amendment, answer.job.amends_job_id) == (2, first.job_id)
    await engine.until_sealed(answer.job.job_id)
    assert sha256sum_agrees(site.at_nas(run)) == 3
    await site.until_sync_status(run, "synced")


async def test_only_the_destination_that_lacks_the_files_gets_an_amendment(site: Site) -> None:
    site.lab.settings["equipment"].clear()
    transports = {n: {"type": "mounted", "path": str(site.nas(destination=n))} for n in ("near", "far")}
    for name in transports:
        site.nas(destination=name).mkdir(parents=True)
    site.equip(destinations=[{"name": n, "transport": t, "required": n == "near"} for n, t in transports.items()])
    run = site.make_run()
    async with running_engine(site) as engine:
        near, far = (await engine.enqueue(run)).jobs
        await engine.until_sealed(near.job_id)
        await engine.until_sealed(far.job_id)
        (site.local(run) / "late.tif").write_bytes(b"late")
        answer = await engine.enqueue(run)
        assert [j.amendment for j in answer.jobs] == [1, 1]
        for job in answer.jobs:
            await engine.until_sealed(job.job_id)
        for name in transports:
            assert sha256sum_agrees(site.at_nas(run, name)) == 3


async def test_a_changed_verified_file_blocks_until_exactly_this_change_is_accepted(engine: Engine) -> None:
    site = engine.site
    old, new, newer = b"pixels", b"PIXELS", b"pixels, once more"
    run = site.make_run({"a.tif": old, "b.tif": b"b"})
    await engine.bring(run)
    (site.local(run) / "a.tif").write_bytes(new)
    blocked = await engine.enqueue(run)
    assert blocked.outcome == BLOCKED
    (finding,) = blocked.blocking_findings
    assert finding.rule == finding_pb2.RULE_VERIFIED_FILE_CHANGED
    assert finding.offending_path == f"{run}/a.tif"
    assert _sha(old) in finding.rule_detail
    assert _sha(new) in finding.rule_detail
    assert site.creation(run)["sync_status"] == "synced"
    assert (await refused(accept(engine, run, "a.tif", b"guessed", new)))[:2] == (PRECONDITION, "NO_SUCH_CHANGE")
    assert await accept(engine, run, "a.tif", old, newer) == []
    assert (await engine.enqueue(run)).outcome == BLOCKED
    await accept(engine, run, "a.tif", old, new)
    answer = await engine.enqueue(run)
    assert answer.outcome == QUEUED
    await engine.until_sealed(answer.job.job_id)
    same_tree(site.local(run), site.at_nas(run))
    assert sha256sum_agrees(site.at_nas(run)) == 2
    assert superseded(site.nas()) == {"a.tif": old}
    accepted = [e for e in await engine.events() if e.type == "sync.run.change_accepted.v1"]
    assert [(e.actor, e.reason) for e in accepted] == [("operator-1", "recalibrated")] * 2


async def test_a_verified_file_that_was_removed_is_superseded_once_that_is_accepted(engine: Engine) -> None:
    site = engine.site
    run = site.make_run({"a.tif": b"pixels", "b.tif": b"b"})
    await engine.bring(run)
    (site.local(run) / "b.tif").unlink()
    blocked = await engine.enqueue(run)
    assert blocked.outcome == BLOCKED
    assert "is missing" in blocked.blocking_findings[0].rule_detail
    await accept(engine, run, "b.tif", b"b", None)
    answer = await engine.enqueue(run)
    await engine.until_sealed(answer.job.job_id)
    assert sorted(p.name for p in site.at_nas(run).glob("*.tif")) == ["a.tif"]
    assert superseded(site.nas()) == {"b.tif": b"b"}
    assert sha256sum_agrees(site.at_nas(run)) == 1
    content = (site.at_nas(run) / ".exlab-wizard/receipt.default.json").read_bytes()
    assert check_run(read_receipt(content).receipt, site.at_nas(run)).wrong == []


async def test_a_folder_that_became_a_file_is_told_to_be_moved_away(engine: Engine) -> None:
    site = engine.site
    run = site.make_run({"d/x": b"old", "b": b"b"})
    await engine.bring(run)
    (site.local(run) / "d/x").unlink()
    (site.local(run) / "d").rmdir()
    (site.local(run) / "d").write_bytes(b"new")
    await accept(engine, run, "d/x", b"old", None)
    job_id = (await engine.enqueue(run)).job.job_id
    job = await engine.until_failed(job_id)
    assert "another kind (file, folder or symlink) in the place of d;" in job.failure.message
    found = engine.problems.QueryProblems(problem_service_pb2.QueryProblemsRequest(run=run))
    (differs,) = [f async for f in found if f.rule == finding_pb2.RULE_DESTINATION_FILE_DIFFERS]
    assert differs.rule_detail.endswith(
        "something of another kind (file, folder or symlink) under this name than the run does."
    )
    (answer,) = answers(await engine.run(run), [])
    assert answer.to_do == (
        "move away at the storage what lies in the place of d; then:",
        f'labferry job retry {job_id} --reason "WHY"',
    )
    (site.at_nas(run) / "d").rename(site.nas() / "put away")
    await engine.sync.RetryJob(sync_service_pb2.RetryJobRequest(job_id=job_id, reason="put away"))
    await engine.until_sealed(job_id)
    assert (site.at_nas(run) / "d").read_bytes() == b"new"


async def test_a_verified_file_that_changes_after_the_amendment_was_queued_holds_it_at_the_gate(site: Site) -> None:
    run = site.make_run({"a.tif": b"pixels"})
    async with running_engine(site) as engine:
        await engine.bring(run)
        equipment = sync_service_pb2.JOB_COMMAND_PAUSE
        (site.local(run) / "late.tif").write_bytes(b"late")
        aside = site.nas().with_name("away")
        site.nas().rename(aside)
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
        await engine.steer_all(equipment, run=run)
        (site.local(run) / "a.tif").write_bytes(b"CHANGED")
        aside.rename(site.nas())
        await engine.steer("ResumeJob", job_id)
        job = await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_GATE)
        assert "verified_file_changed: a.tif" in job.waiting_on[0].detail
        assert (site.at_nas(run) / "a.tif").read_bytes() == b"pixels"
        await accept(engine, run, "a.tif", b"pixels", b"CHANGED")
        await engine.until_sealed(job_id)
        assert superseded(site.nas()) == {"a.tif": b"pixels"}
        same_tree(site.local(run), site.at_nas(run))


async def test_a_verified_symlink_gives_way_to_a_file_that_holds_its_target_once_that_is_accepted(
    engine: Engine,
) -> None:
    site = engine.site
    run = site.make_run({"a.tif": b"pixels"})
    link = site.local(run) / "link"
    link.symlink_to("a.tif")
    await engine.bring(run)
    link.unlink()
    link.write_bytes(b"a.tif")
    blocked = await engine.enqueue(run)
    assert blocked.outcome == BLOCKED
    assert "another kind" in blocked.blocking_findings[0].rule_detail
    assert (await refused(accept(engine, run, "a.tif", b"pixels", b"pixels")))[0] is grpc.StatusCode.INVALID_ARGUMENT
    await accept(engine, run, "link", b"a.tif", b"a.tif")
    await engine.bring(run)
    same_tree(site.local(run), site.at_nas(run))
    assert sha256sum_agrees(site.at_nas(run)) == 2
    kept = [p for p in (site.nas() / ".labferry-superseded").rglob("*") if not p.is_dir()]
    assert [(p.name, p.is_symlink()) for p in kept] == [("link", True)]


async def test_another_file_at_the_destination_is_superseded_once_that_is_accepted(engine: Engine) -> None:
    site = engine.site
    run = site.make_run({"a.tif": b"ours", "b.tif": b"b", "c.tif": b"c"})
    site.at_nas(run).mkdir(parents=True)
    (site.at_nas(run) / "a.tif").write_bytes(b"somebody else's")
    (site.at_nas(run) / "c.tif").write_bytes(b"another c")
    job_id = (await engine.enqueue(run)).job.job_id
    job = await engine.until_failed(job_id)
    met = [(f.path, f.old_sha256, f.new_sha256) for f in job.failure.differing_files]
    assert met == [("a.tif", _sha(b"somebody else's"), _sha(b"ours")), ("c.tif", _sha(b"another c"), _sha(b"c"))]
    request = {"request_id": "accept-1", "destination": "default"}
    assert await accept(engine, run, "a.tif", b"somebody else's", b"ours") == []
    (armed,) = await accept(engine, run, "c.tif", b"another c", b"c", **request)
    assert (armed.job_id, armed.state) == (job_id, job_pb2.JOB_STATE_QUEUED)
    (again,) = await accept(engine, run, "c.tif", b"another c", b"c", **request)
    assert again.revision == armed.revision
    assert (await engine.until_sealed(job_id)).attempt == 2
    same_tree(site.local(run), site.at_nas(run))
    assert superseded(site.nas()) == {"a.tif": b"somebody else's", "c.tif": b"another c"}


async def test_what_changed_again_after_it_was_accepted_does_not_land(engine: Engine) -> None:
    site = engine.site
    run = site.make_run({"a.tif": b"ours"})
    site.at_nas(run).mkdir(parents=True)
    (site.at_nas(run) / "a.tif").write_bytes(b"theirs")
    job_id = (await engine.enqueue(run)).job.job_id
    await engine.until_failed(job_id)
    (site.local(run) / "a.tif").write_bytes(b"other")
    await accept(engine, run, "a.tif", b"theirs", b"ours")
    job = await engine.until(
        job_id,
        lambda u: (
            u.job.state == job_pb2.JOB_STATE_FAILED
            and bool(u.job.failure.differing_files)
            and u.job.failure.differing_files[0].new_sha256 == _sha(b"other")
        ),
    )
    assert job.failure.kind == job_pb2.FAILURE_KIND_DESTINATION_FILE_DIFFERS
    assert (site.at_nas(run) / "a.tif").read_bytes() == b"theirs"
    await accept(engine, run, "a.tif", b"theirs", b"other")
    await engine.until_sealed(job_id)
    assert (site.at_nas(run) / "a.tif").read_bytes() == b"other"
    assert superseded(site.nas()) == {"a.tif": b"theirs"}


async def test_names_that_are_not_utf8_are_accepted_by_their_bytes(engine: Engine) -> None:
    site = engine.site
    run = site.make_run({b"\xff.tif": b"ours"})
    site.at_nas(run).mkdir(parents=True)
    with open(bytes(site.at_nas(run)) + b"/\xff.tif", "wb") as file:
        file.write(b"theirs")
    job_id = (await engine.enqueue(run)).job.job_id
    job = await engine.until_failed(job_id)
    (differing,) = job.failure.differing_files
    assert differing.path_bytes == b"\xff.tif"
    (armed,) = await accept(engine, run, "", b"theirs", b"ours", path_bytes=b"\xff.tif")
    assert armed.job_id == job_id
    await engine.until_sealed(job_id)
    same_tree(site.local(run), site.at_nas(run))


async def test_accepting_needs_sense(engine: Engine) -> None:
    site = engine.site
    run = site.make_run()
    await engine.bring(run)
    for path in ("", "/a.tif", "../a.tif", "sub//b.csv", "sub/./b.csv"):
        assert (await refused(accept(engine, run, path, b"1", b"2")))[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert (await refused(accept(engine, run, "a.tif", b"1", b"1")))[0] is grpc.StatusCode.INVALID_ARGUMENT
    nowhere = accept(engine, run, "a.tif", b"pixels", b"2", destination="nowhere")
    assert (await refused(nowhere))[:2] == (grpc.StatusCode.NOT_FOUND, "DESTINATION_NOT_FOUND")
