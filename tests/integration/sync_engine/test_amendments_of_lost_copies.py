"""A late file of a run whose proven files aren't all there any more: the storage lost some, or a cleanup deleted them
here."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from labferry.sync.v1 import job_pb2, run_pb2, sync_service_pb2
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
from tests.integration.sync_engine.test_cleanup import ALLOWED, data_files, verify

ALREADY_SYNCED = sync_service_pb2.ENQUEUE_OUTCOME_ALREADY_SYNCED


@pytest.mark.parametrize("how", ["missing", "differs"])
async def test_what_the_copy_lost_meanwhile_is_sent_again_with_the_late_file(engine: Engine, how: str) -> None:
    site = engine.site
    run = site.make_run({"a.tif": b"pixels", "b.tif": b"precious", "z.tif": b"more"})
    await engine.bring(run)
    lost = site.at_nas(run) / "b.tif"
    if how == "missing":
        lost.unlink()
    else:
        lost.write_bytes(b"rotten")
    inode = (site.at_nas(run) / "a.tif").stat().st_ino
    (site.local(run) / "late.tif").write_bytes(b"late")
    job = (await engine.enqueue(run)).job
    await engine.until_sealed(job.job_id)
    same_tree(site.local(run), site.at_nas(run))
    assert sha256sum_agrees(site.at_nas(run)) == 4
    assert (site.at_nas(run) / "a.tif").stat().st_ino == inode, "what is right there isn't sent again"
    kept = [p.read_bytes() for p in (site.nas() / ".labferry-superseded").rglob("b.tif")]
    assert kept == ([] if how == "missing" else [b"rotten"])


async def test_what_rotted_here_and_is_lost_there_is_not_brought_as_what_was_proven(engine: Engine) -> None:
    site = engine.site
    run = site.make_run({"a.tif": b"pixels", "b.tif": b"precious"})
    await engine.bring(run)
    (site.at_nas(run) / "b.tif").unlink()
    (site.local(run) / "b.tif").write_bytes(b"PRECIOUS")
    (site.local(run) / "late.tif").write_bytes(b"late")
    answer = await engine.enqueue(run)
    assert answer.outcome == BLOCKED
    assert [f.offending_path for f in answer.blocking_findings] == [f"{run}/b.tif"]


async def test_a_run_that_was_cleaned_takes_one_late_file_after_the_other(site: Site) -> None:
    site.lab.settings["nas_cleanup"] = ALLOWED
    run = site.make_run({"a.tif": b"pixels", "b.tif": b"precious"})
    async with running_engine(site) as engine:
        job = await engine.bring(run)
        await verify(engine, run)
        await engine.until_state(job.job_id, job_pb2.JOB_STATE_CLEANED)
        for number in (1, 2):
            (site.local(run) / f"late{number}.tif").write_bytes(b"late %d" % number)
            answer = await engine.enqueue(run)
            assert answer.outcome == QUEUED, answer
            late = await engine.until_sealed(answer.job.job_id)
            assert late.file_count == 2 + number
            assert (await engine.enqueue(run)).outcome == ALREADY_SYNCED
        assert sha256sum_agrees(site.at_nas(run)) == 4
        taken = sync_service_pb2.AcceptChangeRequest(
            run=run,
            path="a.tif",
            old_sha256=hashlib.sha256(b"pixels").hexdigest(),
            operator="asmith",
            reason="it was offered",
        )
        status, reason, _ = await refused(engine.sync.AcceptChange(taken))
        assert (status, reason) == (PRECONDITION, "NO_SUCH_CHANGE")
        aside = (site.local(run) / "late1.tif").rename(site.lab.folder / "late1.tif")
        answer = await engine.enqueue(run)
        assert answer.outcome == BLOCKED, "nobody deleted this one but by hand"
        assert [f.offending_path for f in answer.blocking_findings] == [f"{run}/late1.tif"]
        aside.rename(site.local(run) / "late1.tif")
        await verify(engine, run)
        await engine.until_state(late.job_id, job_pb2.JOB_STATE_CLEANED)
        assert (await engine.run(run)).sync_status == run_pb2.SYNC_STATUS_CLEANED
        assert not data_files(site.local(run))
        assert sha256sum_agrees(site.at_nas(run)) == 4


async def test_what_only_the_copy_held_counts_again_once_it_was_put_back_and_is_not_moved_away(site: Site) -> None:
    site.lab.settings["nas_cleanup"] = ALLOWED
    run = site.make_run({"a.tif": b"pixels", "b.tif": b"precious", "c.tif": b"more"})
    async with running_engine(site) as engine:
        job = await engine.bring(run)
        await verify(engine, run)
        await engine.until_state(job.job_id, job_pb2.JOB_STATE_CLEANED)
        lost = site.at_nas(run) / "a.tif"
        aside = lost.rename(site.lab.folder / "lost")
        (site.at_nas(run) / "b.tif").write_bytes(b"preciouS")
        (site.local(run) / "late.tif").write_bytes(b"late")
        late = (await engine.enqueue(run)).job.job_id
        failed = await engine.until_failed(late)
        assert failed.failure.message.endswith("1 of 4 files missing, 1 differing: a.tif and 1 more"), failed.failure
        assert (site.at_nas(run) / "b.tif").read_bytes() == b"preciouS", "it is the only copy, such as it is"
        doubted = [e for e in await engine.events() if e.type == "sync.destination.doubted.v1"]
        assert not doubted, "nothing of them was sent"
        aside.rename(lost)
        (site.at_nas(run) / "b.tif").write_bytes(b"precious")
        await engine.steer("RetryJob", late)
        await engine.until_sealed(late)
        assert sha256sum_agrees(site.at_nas(run)) == 4
        assert not (site.nas() / ".labferry-superseded").exists(), "nothing that was put back is moved away"


async def test_what_a_cleanup_left_is_not_the_run_for_a_log_that_knows_of_no_cleanup(site: Site) -> None:
    site.lab.settings["nas_cleanup"] = ALLOWED
    run = site.make_run({"a.tif": b"pixels"})
    async with running_engine(site) as engine:
        job = await engine.bring(run)
        await verify(engine, run)
        await engine.until_state(job.job_id, job_pb2.JOB_STATE_CLEANED)
        await site.until_sync_status(run, "cleaned")
    shutil.rmtree(site.lab.state_dir)
    (site.local(run) / "late.tif").write_bytes(b"late")
    manifest = (site.at_nas(run) / ".exlab-wizard/checksums.sha256").read_bytes()
    async with running_engine(site) as engine:
        status, reason, told = await refused(engine.enqueue(run))
        assert (status, reason) == (PRECONDITION, "SOURCE_UNREADABLE")
        assert "this log knows of no cleanup" in told["detail"]
    assert site.creation(run)["sync_status"] == "cleaned"
    assert (site.at_nas(run) / ".exlab-wizard/checksums.sha256").read_bytes() == manifest
