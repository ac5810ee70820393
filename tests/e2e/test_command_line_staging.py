"""labferry staging and labferry run list, as an operator uses them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from filelock import FileLock

from services.sync_engine.staging.driver import LOCK_NAME
from tests.e2e.terminal import INVALID, NO, PRECONDITION, Operator
from tests.integration.sync_engine.running_engine import PATIENCE, Site, creation_document, new_site, running_engine
from tests.integration.sync_engine.staging_site import Pushed, push, stage


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with new_site() as site:
        site.equip()
        yield site


async def _until(operator: Operator, pushed: Pushed, state: str, *, held: bool = False) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            listed = await operator("staging", "list", "--state", state, "-o", "json")
            if pushed.run in [run["run"] for run in listed.json if run.get("hold") or not held]:
                return


async def test_runs_that_were_pushed_are_listed_and_cleared(site: Site) -> None:
    stage(site)
    site.lab.settings["nas_cleanup"] = {"enabled": True, "min_verify_passes": 1, "min_age_hours": 0}
    pushed = push(site)
    stranger = push(site, equipment="SCOPE_09", orchestrator={"equipment_label": "New", "host": "scope-pc"})
    pushed.finish()
    operator = Operator(site)
    async with running_engine(site) as engine:
        await _until(operator, pushed, "sync_verified")
        table = await operator("staging", "list")
        assert table.status == 0
        assert f"{pushed.run}  sync_verified" in table.out
        assert stranger.run in table.out
        equipment = await operator("staging", "list", "--equipment")
        assert "SCOPE_09" in equipment.out and "New" in equipment.out and "scope-pc" in equipment.out
        (run,) = (await engine.staged(states=[4])).runs
        await engine.until_sealed(run.job_ids[0])
        dry = await operator("staging", "clear", pushed.run, "--dry-run")
        assert dry.status == 0
        assert "staging_state" in dry.out and "not asked" in dry.out and "3 files" in dry.err
        assert (await operator("staging", "clear", pushed.run)).status == INVALID
        done = await operator("staging", "clear", pushed.run, "--reason", "the disk is full", "-o", "json")
        assert (done.status, done.json[0]["cleared"]) == (0, True)
        assert not (pushed.folder / "a.tif").exists()
        pushed.write("again.tif")
        await _until(operator, pushed, "cleared", held=True)
        held = await operator("staging", "list")
        assert f"{pushed.run}  cleared" in held.out and "again.tif appeared" in held.out
        why = await operator("why", pushed.run)
        assert (why.status, f"$ labferry run queue '{pushed.run}'" in why.out) == (NO, True)
        for options in (["--dry-run"], ["--reason", "x"]):
            stays = await operator("staging", "clear", pushed.run, *options)
            assert (stays.status, "cleared:" in stays.out) == (NO, False)
            assert "still here: again.tif: it appeared after the run was cleaned" in stays.err
        await engine.bring(pushed.run)
        clear = f"labferry staging clear '{pushed.run}' --reason"
        assert f"$ {clear}" in (await operator("why", pushed.run)).out
        assert (await operator("staging", "clear", pushed.run, "--reason", "x")).status == 0
        assert pushed.run not in (await operator("staging", "list")).out
        driven = await operator("doctor", "-o", "json")
        (staging,) = [check for check in driven.json if check["part"] == "staging"]
        assert (staging["ok"], "this engine drives" in staging["detail"]) == (True, True)
        early = await operator("staging", "clear", stranger.run, "--reason", "x")
        assert early.status == NO
        assert "only sync_verified is cleared" in early.out


async def test_why_tells_of_runs_that_are_being_pushed(site: Site) -> None:
    # Long enough for nothing to stall.
    stage(site, settle_seconds=10)
    pushed = push(site)
    operator = Operator(site)
    async with running_engine(site):
        await _until(operator, pushed, "staging")
        why = await operator("why", pushed.run, "-o", "json")
        (answer,) = why.json
        assert (why.status, answer["condition"], answer["who_can_clear"]) == (0, "staging", "")
        assert "queued by itself" in answer["detail"]
    stage(site)
    (pushed.folder / "{{ x }}.tif").write_bytes(b"left over")
    pushed.finish()
    async with running_engine(site):
        await _until(operator, pushed, "complete")
        why = await operator("why", pushed.run, "-o", "json")
        assert (why.status, why.json[0]["condition"], why.json[0]["who_can_clear"]) == (NO, "gate", "operator")


async def test_runs_are_listed_by_every_filter_and_without_a_staging_root_nothing_is_staged(site: Site) -> None:
    early = site.make_run(leaf="Run_2026-01-01T00-00", creation=creation_document(created_at="2026-01-01T00:00:00Z"))
    late = site.make_run(leaf="Run_2026-03-01T00-00", creation=creation_document(created_at="2026-03-01T00:00:00Z"))
    test = "CONFOCAL_01/Other/TestRuns/TestRun_2026-04-17T14-32"
    site.local(test).mkdir(parents=True)
    site.write_creation(test, creation_document(run_kind="test"))
    operator = Operator(site)

    async def listed(*options: str) -> list[str]:
        return [run["run"] for run in (await operator("run", "list", *options, "-o", "json")).json]

    async with running_engine(site) as engine:
        assert await listed() == [early, late, test]
        assert await listed("--limit", "2") == [early, late]
        assert await listed("--kind", "test") == await listed("--project", "Other") == [test]
        assert await listed("--after", "2026-02-01", "--before", "2026-03-01T00:00:01Z") == [late]
        await engine.bring(late)
        assert await listed("--status", "synced", "--equipment", "CONFOCAL_01") == [late]
        table = await operator("run", "list", "--status", "synced")
        assert f"{late}  experimental  synced" in table.out
        assert "2026-03-01T00:00:00Z  default verified" in table.out
        assert (await operator("run", "list", "--status", "nonsense")).status == 2
        staged = await operator("staging", "list")
        assert staged.status == NO
        assert "no staging root is configured" in staged.err
        cleared = await operator("staging", "clear", late, "--dry-run")
        assert cleared.status == PRECONDITION
        assert "STAGING_NOT_DRIVEN" in cleared.err


async def test_doctor_tells_of_a_root_that_somebody_else_drives(site: Site) -> None:
    root = stage(site)
    operator = Operator(site)
    with FileLock(root / LOCK_NAME):
        async with running_engine(site):
            said = await operator("doctor")
    assert said.status == NO
    assert f"another program drives {root}" in said.out
