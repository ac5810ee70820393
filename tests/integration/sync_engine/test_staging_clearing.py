"""Clearing what was staged: only proven runs, under every interlock, when somebody asks or when it is scheduled."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest

from labferry.sync.v1 import job_pb2
from labferry.sync.v1 import staging_service_pb2 as pb
from tests.faults.sync_engine.test_clock_jumps import Clock
from tests.integration.sync_engine.running_engine import Engine, Site, running_engine
from tests.integration.sync_engine.staging_site import (
    CLEARED,
    IN_ORDER,
    STAGING,
    VERIFIED,
    Pushed,
    looks,
    push,
    stage,
    until_held,
    until_state,
)
from tests.integration.sync_engine.test_bad_input import refused, wrong_fields
from tests.integration.sync_engine.test_cleanup import ALLOWED, data_files, until_cleaned, verify
from tests.integration.sync_engine.test_staging import findings

_COSTLY = {"local_files_unchanged", "writers_visible", "fresh_read_back", "copy_is_elsewhere"}
AT_ONCE = {**ALLOWED, "min_verify_passes": 1}


async def clear(engine: Engine, *pushed: Pushed, **fields: Any) -> list[pb.ClearedRun]:
    runs = [one.run for one in pushed]
    request = pb.ClearStagedRunsRequest(**{"runs": runs, "reason": "the disk is full", **fields})
    return list((await engine.staging.ClearStagedRuns(request)).runs)


def lacking(one: pb.ClearedRun) -> set[str]:
    return {i.name for i in one.interlocks if not i.satisfied}


async def proven(engine: Engine, pushed: Pushed) -> job_pb2.Job:
    pushed.finish()
    done = await until_state(engine, pushed.run, VERIFIED)
    return await engine.until_sealed(done.job_ids[0])


async def test_chosen_runs_are_cleared_when_every_interlock_holds(site: Site) -> None:
    stage(site)
    site.lab.settings["nas_cleanup"] = dict(ALLOWED)
    async with running_engine(site) as engine:
        pushed, arriving = push(site), push(site, leaf="Run_2026-04-17T15-00")
        job = await proven(engine, pushed)
        await until_state(engine, arriving.run, STAGING)
        files = data_files(pushed.folder)
        held, early = await clear(engine, pushed, arriving)
        assert (held.cleared, lacking(held)) == (False, {"verify_passes", "age", *_COSTLY})
        assert (early.cleared, lacking(early)) == (False, {"staging_state"})
        assert await verify(engine, pushed.run)
        (dry,) = await clear(engine, pushed, dry_run=True, reason="")
        assert (dry.cleared, lacking(dry), dry.file_count) == (False, {"fresh_read_back", "copy_is_elsewhere"}, 3)
        assert dry.interlocks[0].name == "staging_state"
        (pushed.folder / "late.tif").write_bytes(b"late")
        (changed,) = await clear(engine, pushed)
        assert lacking(changed) == {"local_files_unchanged", "fresh_read_back", "copy_is_elsewhere"}
        (pushed.folder / "late.tif").unlink()
        assert data_files(pushed.folder) == files
        (done,) = await clear(engine, pushed)
        assert (done.cleared, done.file_count, lacking(done)) == (True, 3, set())
        assert data_files(pushed.folder) == set()
        assert (await until_state(engine, pushed.run, CLEARED)).hold == pb.STAGING_HOLD_UNSPECIFIED
        assert pushed.states_in_file() == IN_ORDER
        assert pushed.run not in [r.run for r in (await engine.staged()).runs]
        assert (await engine.job(job.job_id)).state == job_pb2.JOB_STATE_CLEANED
        assert len(data_files(site.at_nas(pushed.run))) == 3
        (again,) = await clear(engine, pushed)
        assert again.cleared
        nobody = engine.staging.ClearStagedRuns(
            pb.ClearStagedRunsRequest(runs=[arriving.run, pushed.run + "9"], reason="x")
        )
        assert (await refused(nobody))[:2] == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
        assert await wrong_fields(engine.staging.ClearStagedRuns(pb.ClearStagedRunsRequest())) == {"runs", "reason"}


async def test_what_appears_in_a_cleared_run_is_told_until_it_is_brought_and_cleared(site: Site) -> None:
    stage(site)
    site.lab.settings["nas_cleanup"] = dict(AT_ONCE)
    async with running_engine(site) as engine:
        pushed = push(site)
        await proven(engine, pushed)
        (done,) = await clear(engine, pushed)
        assert done.cleared
        pushed.folder.joinpath("empty", "deeper").mkdir(parents=True)
        await looks(engine)
        assert not (await until_state(engine, pushed.run, CLEARED)).hold, "nothing could be lost"
        more = pushed.folder / os.fsdecode(b"empty/more\xff.tif")
        more.write_bytes(b"pushed again")
        held = await until_held(engine, pushed.run, pb.STAGING_HOLD_UNUSABLE)
        assert held.hold_detail.startswith("empty/more\ufffd.tif appeared after the run was cleared")
        assert pushed.run in [r.run for r in (await engine.staged()).runs]
        for fields in ({}, {"dry_run": True}):
            (stays,) = await clear(engine, pushed, **fields)
            assert (stays.cleared, stays.file_count, len(stays.interlocks)) == (False, 0, 0)
            assert ["queueing the run" in left.why for left in stays.remaining] == [True]
        (amended,) = (await engine.enqueue(pushed.run)).jobs
        await engine.until_sealed(amended.job_id)
        (dry,) = await clear(engine, pushed, dry_run=True)
        assert (dry.cleared, lacking(dry), dry.file_count) == (False, {"fresh_read_back", "copy_is_elsewhere"}, 1)
        (done,) = await clear(engine, pushed)
        assert (done.cleared, done.file_count, lacking(done)) == (True, 1, set())
        assert data_files(pushed.folder) == set()
        assert pushed.run not in [r.run for r in (await engine.staged()).runs]
        assert "staging_waiting" not in [rule for rule, _ in await findings(engine)]
        pushed.write("by hand.tif")
        await until_held(engine, pushed.run, pb.STAGING_HOLD_UNUSABLE)
        (pushed.folder / "by hand.tif").unlink()
        await until_held(engine, pushed.run, pb.STAGING_HOLD_UNSPECIFIED)
        pushed.write("with its folder.tif")
        await until_held(engine, pushed.run, pb.STAGING_HOLD_UNUSABLE)
        shutil.rmtree(pushed.folder)
        await until_held(engine, pushed.run, pb.STAGING_HOLD_UNSPECIFIED)
        (gone,) = await clear(engine, pushed)
        assert (gone.cleared, gone.problem) == (True, "")


async def test_what_is_staged_is_never_cleared_by_itself_unless_that_is_scheduled(site: Site) -> None:
    stage(site)
    site.lab.settings["nas_cleanup"] = dict(AT_ONCE)
    async with running_engine(site) as engine:
        pushed = push(site)
        await proven(engine, pushed)
        here = site.make_run(leaf="Run_2026-04-18T10-00")
        job = await engine.bring(here)
        await until_cleaned(engine, job.job_id)
        assert len(data_files(pushed.folder)) == 3, "the reaper leaves it alone"


@pytest.mark.slow
@pytest.mark.parametrize("retain_cache", [True, False])
async def test_scheduled_clearing_waits_for_its_hours(site: Site, tmp_path: Path, retain_cache: bool) -> None:
    stage(site, staging_cleanup={"mode": "scheduled", "retain_hours": 1})
    site.lab.settings["nas_cleanup"] = {**AT_ONCE, "retain_cache": retain_cache}
    pushed = push(site)
    async with running_engine(site) as engine:
        await proven(engine, pushed)
        # Another run's whole way: the clearing, which looks at its start, has long looked.
        await engine.bring(site.make_run(leaf="Run_2026-04-18T10-00"))
        assert len(data_files(pushed.folder)) == 3
    clock = Clock(tmp_path / "clock")
    clock.jump("+2h")
    with clock.for_children():
        async with running_engine(site) as engine:
            await until_state(engine, pushed.run, CLEARED)
            assert data_files(pushed.folder) == set()
            if retain_cache:
                await pushed.until_mirrored("cleared")
            assert (pushed.folder / ".exlab-wizard").exists() == retain_cache
    assert len(data_files(site.at_nas(pushed.run))) == 3
    assert (site.at_nas(pushed.run) / ".exlab-wizard" / "creation.json").is_file()
