"""CleanRun: the local data goes only while every interlock holds, and whatever holds it back is named (SPEC §4)."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from labferry.sync.v1 import job_pb2, run_pb2, sync_service_pb2
from services.sync_engine.cleanup.set_aside import path_set_aside
from tests.integration.sync_engine.running_engine import (
    Engine,
    Site,
    running_engine,
    sha256sum_agrees,
)
from tests.integration.sync_engine.test_bad_input import PRECONDITION, refused

ALLOWED = {"enabled": True, "min_verify_passes": 2, "min_age_hours": 0}
CLEANED, VERIFIED = job_pb2.JOB_STATE_CLEANED, job_pb2.JOB_STATE_VERIFIED


@pytest.fixture
async def allowed(site: Site) -> Site:
    """A site whose configuration lets local data be deleted after two passes."""
    site.lab.settings["nas_cleanup"] = dict(ALLOWED)
    return site


async def verify(engine: Engine, run: str) -> bool:
    request = sync_service_pb2.VerifyRunRequest(run=run, reason="audit")
    reports = [u.report async for u in engine.sync.VerifyRun(request) if u.HasField("report")]
    return all(r.passed for r in reports)


async def clean(engine: Engine, run: str, **fields: Any) -> sync_service_pb2.CleanRunResponse:
    request = sync_service_pb2.CleanRunRequest(**{"run": run, "reason": "disk is full", **fields})
    answer: sync_service_pb2.CleanRunResponse = await engine.sync.CleanRun(request)
    return answer


def lacking(answer: sync_service_pb2.CleanRunResponse) -> set[str]:
    return {i.name for i in answer.interlocks if not i.satisfied}


def data_files(folder: Path) -> set[str]:
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() or p.is_symlink()}
    return {name for name in found if not name.startswith(".exlab-wizard")}


def files_not_deleted(folder: Path) -> set[str]:
    """`data_files`, and those that lie aside since the engine was stopped dead: they are put back."""
    aside = [path_set_aside(os.fsencode(p.name), dict) for p in (folder / ".exlab-wizard").iterdir()]
    return data_files(folder) | {os.fsdecode(path) for path in aside if path is not None}


async def until_cleaned(engine: Engine, job_id: str) -> job_pb2.Job:
    return await engine.until_state(job_id, CLEANED)


async def test_the_local_data_goes_after_the_last_pass_and_the_copy_stays(allowed: Site, tmp_path: Path) -> None:
    allowed.lab.settings["nas_cleanup"]["min_age_hours"] = 1000
    async with running_engine(allowed) as engine:
        run = allowed.make_run({"a.tif": b"pixels", "sub/deep/b c.csv": b"1,2\n", b"sub/\xff.bin": b"?"})
        os.symlink("a.tif", allowed.local(run) / "link")
        job = await engine.bring(run)
        dry = await clean(engine, run, dry_run=True)
        assert [i.name for i in dry.interlocks] == [
            *("enabled", "copies_verified", "verify_passes", "age", "sealed", "destinations_answer"),
            *("no_recent_tombstone", "gate_open", "local_files_unchanged", "writers_visible", "within_limits"),
            *("fresh_read_back", "copy_is_elsewhere"),
        ]
        assert lacking(dry) == {"verify_passes", "age", "fresh_read_back", "copy_is_elsewhere"}
        assert {i.name for i in dry.interlocks if i.not_asked} == {"fresh_read_back", "copy_is_elsewhere"}
        assert (dry.cleaned, dry.file_count) == (False, 4)
        assert await verify(engine, run)
        assert lacking(await clean(engine, run)) >= {"age"}
        held = await engine.job(job.job_id)
        assert [w.condition for w in held.waiting_on] == [job_pb2.WAIT_CONDITION_CLEANUP_INTERLOCK]
        assert held.waiting_on[0].detail.startswith("age: ")
        assert len(data_files(allowed.local(run))) == 4
    allowed.lab.settings["nas_cleanup"]["min_age_hours"] = 0
    async with running_engine(allowed) as engine:
        await until_cleaned(engine, job.job_id)
        assert data_files(allowed.local(run)) == set()
        assert not (allowed.local(run) / "sub").exists()
        assert len(data_files(allowed.at_nas(run))) == 4
        assert sha256sum_agrees(allowed.at_nas(run)) == 3
        await allowed.until_sync_status(run, "cleaned")
        assert (await engine.run(run)).sync_status == run_pb2.SYNC_STATUS_CLEANED
        again = await clean(engine, run)
        assert (again.cleaned, again.file_count) == (True, 0)
        types = await engine.event_types(f"run-{run}")
        assert types[-3:] == [
            *("sync.run.cleanup_begun.v1", "sync.run.cleanup_ended.v1", "sync.run.sync_status_changed.v1")
        ]


async def test_what_is_put_back_into_a_cleaned_run_is_told_for_what_it_is(allowed: Site) -> None:
    async with running_engine(allowed) as engine:
        run = allowed.make_run({"a.tif": b"pixels", "b.tif": b"more", "sub/c.csv": b"1,2\n"})
        job = await engine.bring(run)
        assert await verify(engine, run)
        await until_cleaned(engine, job.job_id)
        for name in ("a.tif", "b.tif"):
            shutil.copy(allowed.at_nas(run) / name, allowed.local(run) / name)
        equal = (
            "it appeared after the run was cleaned, and equals what was proven at every destination: queueing the run"
            " has nothing to bring of it, and nothing here deletes it. Delete it by hand when nobody needs it here any"
            " more"
        )
        for dry in (True, False):
            answer = await clean(engine, run, dry_run=dry)
            assert not answer.cleaned
            assert [(file.path, file.why) for file in answer.remaining] == [("a.tif", equal), ("b.tif", equal)]
        assert (await engine.enqueue(run)).outcome == sync_service_pb2.ENQUEUE_OUTCOME_ALREADY_SYNCED
        (allowed.local(run) / "b.tif").write_bytes(b"MORE")
        (allowed.local(run) / "d.tif").write_bytes(b"new")
        told = {file.path: file.why for file in (await clean(engine, run)).remaining}
        assert told["a.tif"] == equal
        assert "isn't what was proven under this name" in told["b.tif"]
        assert told["d.tif"] == "it appeared after the run was cleaned; queueing the run brings it"
        assert (await engine.enqueue(run)).outcome == sync_service_pb2.ENQUEUE_OUTCOME_BLOCKED
        (allowed.at_nas(run) / "sub/c.csv").unlink()
        assert not await verify(engine, run)
        told = {file.path: file.why for file in (await clean(engine, run)).remaining}
        assert told["a.tif"].endswith("the copy at default was found wrong since: keep it")
        shutil.copytree(allowed.at_nas(run) / "sub", allowed.local(run) / "sub", dirs_exist_ok=True)
        (allowed.local(run) / "sub/c.csv").write_bytes(b"1,2\n")
        assert not await verify(engine, run)
        await engine.until(job.job_id, lambda u: u.job.verify_passes == 1)
        assert (allowed.at_nas(run) / "sub/c.csv").read_bytes() == b"1,2\n", "mended from what was put back here"


async def test_nothing_goes_while_cleanup_is_not_enabled(engine: Engine) -> None:
    run = engine.site.make_run()
    await engine.bring(run)
    assert await verify(engine, run)
    assert "enabled" in lacking(await clean(engine, run))
    assert data_files(engine.site.local(run)) == {"a.tif", "sub/b.csv"}


async def test_nothing_goes_before_each_copy_is_sealed_with_the_last_status(allowed: Site) -> None:
    allowed.lab.settings["nas_cleanup"]["min_verify_passes"] = 1
    equipment = allowed.lab.settings["equipment"][0]
    default = equipment.pop("transport")
    late = {"type": "mounted", "path": str(allowed.nas(destination="late"))}
    equipment["destinations"] = [{"name": "nas", "transport": default}, {"name": "late", "transport": late}]
    run = allowed.make_run()
    sealed = allowed.at_nas(run) / ".exlab-wizard/creation.json"
    async with running_engine(allowed) as engine:
        await engine.until_sealed((await engine.enqueue(run)).job.job_id)
    assert "sync_status" not in json.loads(sealed.read_text())
    sealed.unlink()
    # Nothing can be renamed over a folder: the copy's data is whole, and it can't be sealed again.
    sealed.mkdir()
    allowed.nas(destination="late").mkdir(parents=True)
    async with running_engine(allowed) as engine:
        listed = await engine.sync.ListJobs(sync_service_pb2.ListJobsRequest(run=run, page_size=10))
        (other,) = [job for job in listed.jobs if job.destination == "late"]
        await engine.until_sealed(other.job_id)
        held = await clean(engine, run)
        assert "sealed" in lacking(held)
        assert ["nas" in i.detail for i in held.interlocks if i.name == "sealed"] == [True]
        assert data_files(allowed.local(run)) == {"a.tif", "sub/b.csv"}


async def test_what_a_cleanup_left_is_not_proven_elsewhere_as_if_it_were_the_run(allowed: Site) -> None:
    allowed.lab.settings["nas_cleanup"]["min_verify_passes"] = 1
    async with running_engine(allowed) as engine:
        run = allowed.make_run()
        await until_cleaned(engine, (await engine.enqueue(run)).job.job_id)
        (allowed.local(run) / "late.tif").write_bytes(b"late")
    equipment = allowed.lab.settings["equipment"][0]
    default = equipment.pop("transport")
    allowed.nas(destination="archive").mkdir(parents=True)
    archive = {"type": "mounted", "path": str(allowed.nas(destination="archive"))}
    equipment["destinations"] = [
        {"name": "default", "transport": default},
        {"name": "archive", "required": False, "transport": archive},
    ]
    async with running_engine(allowed) as engine:
        enqueue = engine.sync.EnqueueRun(sync_service_pb2.EnqueueRunRequest(run=run))
        assert (await refused(enqueue))[:2] == (PRECONDITION, "SOURCE_UNREADABLE")
        assert data_files(allowed.nas(destination="archive")) == set()
        del equipment["destinations"][1]
    async with running_engine(allowed) as engine:
        amended = await engine.until_sealed((await engine.enqueue(run)).job.job_id)
        assert (amended.amendment, amended.file_count) == (1, 3)
        assert sha256sum_agrees(allowed.at_nas(run)) == 3
