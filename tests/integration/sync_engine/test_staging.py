"""Staging: what instruments push is discovered, waited for, brought to its destination, and mirrored (SPEC §8)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from labferry.sync.v1 import finding_pb2, problem_service_pb2, run_service_pb2
from labferry.sync.v1 import staging_service_pb2 as pb
from tests.integration.sync_engine.running_engine import (
    EQUIPMENT,
    PATIENCE,
    PROJECT,
    Engine,
    Site,
    new_site,
    running_engine,
    same_tree,
    sha256sum_agrees,
)
from tests.integration.sync_engine.staging_site import (
    COMPLETE,
    IN_ORDER,
    STAGING,
    VERIFIED,
    Pushed,
    looks,
    push,
    stage,
    staged_run,
    until_held,
    until_staged,
    until_state,
)
from tests.integration.sync_engine.test_bad_input import refused

LISTER = "LISTER_02"
"""An instrument that says by a list of files that a run is all there."""
BY_LIST = {"completeness_signal": "manifest", "manifest_filename": "files.json"}
pytestmark = pytest.mark.asyncio(loop_scope="module")


def _site(site: Site) -> None:
    stage(site)
    site.equip()
    site.equip(LISTER, **BY_LIST)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def intake() -> AsyncIterator[Engine]:
    """One engine for all instruments here: each test has runs of its own."""
    async with new_site() as site:
        _site(site)
        async with running_engine(site) as engine:
            yield engine


async def findings(engine: Engine, **scope: Any) -> list[tuple[str, str]]:
    request = problem_service_pb2.QueryProblemsRequest(**scope)
    return [
        (finding_pb2.Rule.Name(f.rule).removeprefix("RULE_").lower(), f.run_path)
        async for f in engine.problems.QueryProblems(request)
    ]


async def test_a_pushed_run_is_brought_proven_and_mirrored(intake: Engine) -> None:
    site = intake.site
    pushed = push(site)
    await until_state(intake, pushed.run, STAGING)
    await looks(intake)
    assert (await until_state(intake, pushed.run, STAGING)).hold == pb.STAGING_HOLD_UNSPECIFIED
    pushed.finish()
    done = await until_state(intake, pushed.run, VERIFIED)
    await pushed.until_mirrored("sync_verified")
    assert (done.equipment_id, done.project, done.file_count, done.byte_count) == (EQUIPMENT, PROJECT, 3, 10)
    job = await intake.until_sealed(done.job_ids[0])
    assert job.run == pushed.run
    same_tree(pushed.folder, site.at_nas(pushed.run))
    assert sha256sum_agrees(site.at_nas(pushed.run)) == 3
    ingest = pushed.ingest()
    assert list(ingest) == [
        *("schema_version", "project_name", "equipment_id", "run_kind", "run_path", "transport"),
        *("current_state", "history"),
    ]
    assert (ingest["schema_version"], ingest["run_path"], ingest["transport"]) == ("1.1", pushed.run, "smb_mount")
    assert pushed.states_in_file() == IN_ORDER[:4]
    complete, verified = ingest["history"][1], ingest["history"][3]
    assert (complete["files_received"], complete["bytes_received"]) == (3, 10)
    assert verified["checksum_file"] == ".exlab-wizard/checksums.sha256"
    assert verified["nas_path"] == done.nas_path == str(site.at_nas(pushed.run))
    there = json.loads((site.at_nas(pushed.run) / ".exlab-wizard" / "ingest.json").read_text())
    assert there["current_state"] == "sync_verified", "the seal takes it along"
    types = await intake.event_types(f"staged-{pushed.run}")
    assert types == [f"sync.staging.{t}.v1" for t in ("discovered", "completed", "queued", "verified")]
    assert await findings(intake, run=pushed.run) == []
    listed = await intake.runs.ListRuns(run_service_pb2.ListRunsRequest())
    assert (pushed.run, True) in [(r.run, r.HasField("creation")) for r in listed.runs]


async def test_an_instrument_that_writes_slowly_in_bursts_and_renames_at_the_end(intake: Engine) -> None:
    pushed = push(intake.site, {"scan.tif.part": b"1"}, leaf="Run_2026-04-17T14-40")
    for burst in range(3):
        await looks(intake)
        for number in range(20):
            pushed.write(f"burst {burst}/{number}.csv", b"1;2")
            pushed.write("scan.tif.part", b"1" * (20 * burst + number + 2))
        found = await staged_run(intake, pushed.run)
        assert found is not None and found.state == STAGING
    (pushed.folder / "scan.tif.part").rename(pushed.folder / "scan.tif")
    pushed.finish()
    done = await until_state(intake, pushed.run, VERIFIED)
    assert done.file_count == 62
    await intake.until_sealed(done.job_ids[0])
    same_tree(pushed.folder, intake.site.at_nas(pushed.run))


async def test_a_folder_that_gets_its_name_at_the_end(intake: Engine) -> None:
    pushed = push(intake.site, leaf=".arriving")
    pushed.finish()
    await looks(intake)
    assert await staged_run(intake, pushed.run) is None
    final = pushed.folder.with_name("Run_2026-04-17T14-41")
    pushed.folder.rename(final)
    run = pushed.run.replace(".arriving", final.name)
    await until_state(intake, run, VERIFIED)


async def test_a_list_of_files_is_waited_for(intake: Engine) -> None:
    wanted = {"files.json": b'{"files": [{"path": "a.tif", "size": 3}, {"path": "sub/b.csv"}]}'}
    pushed = push(intake.site, wanted, equipment=LISTER)
    pushed.finish()
    stalled = await until_held(intake, pushed.run, pb.STAGING_HOLD_STALLED)
    assert stalled.state == STAGING
    assert "a.tif, sub/b.csv are not there" in stalled.hold_detail
    assert await findings(intake, run=pushed.run) == [("staging_stalled", pushed.run)]
    assert ("staging_stalled", pushed.run) in await findings(intake)
    assert await intake.event_types(f"run-{pushed.run}") == [], "it isn't synced"
    pushed.write("a.tif", b"12")
    await until_held_so_often(intake, pushed.run, 3)
    pushed.write("sub/b.csv", b"any")
    await until_held_so_often(intake, pushed.run, 5)
    pushed.write("a.tif", b"123")
    done = await until_state(intake, pushed.run, VERIFIED)
    assert done.hold == pb.STAGING_HOLD_UNSPECIFIED
    assert await findings(intake, run=pushed.run) == []


async def until_held_so_often(engine: Engine, run: str, times: int) -> None:
    """Until so many events said what holds the run, or that nothing does."""
    async with asyncio.timeout(PATIENCE):
        while (await engine.event_types(f"staged-{run}")).count("sync.staging.held.v1") < times:
            await asyncio.sleep(0.1)


async def test_lists_that_are_none_never_complete_a_run(intake: Engine) -> None:
    contents = [b"{", b'{"files": [{"path": "../../other"}]}', b'{"files": [3]}']
    pushed = [
        push(intake.site, {"files.json": c}, leaf=f"Run_2026-04-17T14-1{n}", equipment=LISTER)
        for n, c in enumerate(contents)
    ]
    empty = push(intake.site, {"files.json": b'{"files": []}'}, leaf="Run_2026-04-17T14-20", equipment=LISTER)
    await until_state(intake, empty.run, VERIFIED)
    for one in pushed:
        held = await until_held(intake, one.run, pb.STAGING_HOLD_STALLED)
        assert "files.json can't be used" in held.hold_detail


async def test_a_test_run_is_pushed(intake: Engine) -> None:
    pushed = push(intake.site, leaf="TestRun_2026-04-17T14-32", group="TestRuns", run_kind="test")
    pushed.finish()
    done = await until_state(intake, pushed.run, VERIFIED)
    assert (done.run_kind, pushed.ingest()["run_kind"]) == (2, "test")
    assert intake.site.at_nas(pushed.run).is_dir()


@pytest_asyncio.fixture(loop_scope="module")
async def staged() -> AsyncIterator[Site]:
    """A site with a staging root; nothing runs yet."""
    async with new_site() as site:
        _site(site)
        yield site


async def test_equipment_that_is_not_configured_is_discovered_and_its_runs_wait(staged: Site) -> None:
    block = {
        "enabled": True,
        "host": "scope-pc",
        "label": "bench",
        "equipment_label": "New scope",
        "completeness_signal": "manifest",
        "manifest_filename": "list.json",
    }
    pushed = push(
        staged, {"list.json": b'{"files": [{"path": "x"}]}', "x": b"1"}, equipment="SCOPE_09", orchestrator=block
    )
    silent = push(staged, equipment="SCOPE_10")
    async with running_engine(staged) as engine:
        held = await until_held(engine, pushed.run, pb.STAGING_HOLD_EQUIPMENT_NOT_CONFIGURED)
        assert held.state == COMPLETE
        await until_held(engine, silent.run, pb.STAGING_HOLD_STALLED)
        page = await engine.staged()
        assert (page.driving, page.problem) == (True, "")
        known = {e.equipment_id: e for e in page.equipment}
        assert set(known) == {"SCOPE_09", "SCOPE_10"}
        scope = known["SCOPE_09"]
        assert (scope.configured, scope.label, scope.host) == (False, "New scope", "scope-pc")
        assert (scope.completeness_signal, scope.signal_file) == (pb.COMPLETENESS_SIGNAL_MANIFEST, "list.json")
        assert known["SCOPE_10"].completeness_signal == pb.COMPLETENESS_SIGNAL_UNSPECIFIED
        assert ("staging_waiting", pushed.run) in await findings(engine)
        assert ("staging_waiting", pushed.run) in await findings(engine, equipment_id="SCOPE_09")
        assert ("staging_waiting", pushed.run) in await findings(engine, run=pushed.run)
    staged.equip("SCOPE_09")
    async with running_engine(staged) as engine:
        await until_state(engine, pushed.run, VERIFIED)
        await pushed.until_mirrored("sync_verified")
        assert pushed.states_in_file() == IN_ORDER[:4]


async def test_a_blocked_run_stays_complete_until_an_override(intake: Engine) -> None:
    pushed = push(intake.site, {"{{ x }}.tif": b"1"}, leaf="Run_2026-04-17T14-50")
    pushed.finish()
    held = await until_held(intake, pushed.run, pb.STAGING_HOLD_BLOCKED)
    assert held.state == COMPLETE
    assert "leftover_jinja_marker" in held.hold_detail
    assert await findings(intake, run=pushed.run) == [("leftover_jinja_marker", pushed.run)]
    await intake.override(pushed.run, finding_pb2.RULE_LEFTOVER_JINJA_MARKER)
    await until_state(intake, pushed.run, VERIFIED)
    types = await intake.event_types(f"run-{pushed.run}")
    assert types.count("sync.run.enqueue_blocked.v1") == 1


async def test_what_keeps_a_run_from_being_used_is_named(intake: Engine) -> None:
    site = intake.site
    without = push(site, leaf="Run_2026-04-17T14-01")
    (without.folder / ".exlab-wizard" / "creation.json").unlink()
    without.finish()
    site.make_run(leaf="Run_2026-04-17T14-02")
    twice = push(site, leaf="Run_2026-04-17T14-02")
    twice.finish()
    broken = Pushed(twice.run.replace("14-02", "14-03"), twice.folder.with_name("Run_2026-04-17T14-03"))
    # In one step, or the engine writes the file before.
    beside = Pushed(broken.run, site.lab.folder / "beside")
    beside.created()
    beside.write("a.tif")
    beside.write(".exlab-wizard/ingest.json", b"{ by hand")
    beside.folder.rename(broken.folder)
    # At once: a run without its flag is soon held for that.
    assert "ingest.json" in (await until_held(intake, broken.run, pb.STAGING_HOLD_UNUSABLE)).hold_detail
    assert ("staging_waiting", broken.run) in await findings(intake)
    broken.finish()
    linked = push(site, leaf="Run_2026-04-17T14-04")
    (linked.folder / "out").symlink_to("/etc/hostname")
    for one in (without, linked):
        held = await until_held(intake, one.run, pb.STAGING_HOLD_UNUSABLE)
        assert held.hold_detail, one.run
    assert (await until_held(intake, twice.run, pb.STAGING_HOLD_ELSEWHERE)).state == COMPLETE
    await until_state(intake, broken.run, VERIFIED)
    assert (broken.folder / ".exlab-wizard" / "ingest.json").read_bytes() == b"{ by hand"
    without.created()
    (linked.folder / "out").unlink()
    linked.finish()
    await until_staged(intake, linked.run, lambda r: r.state == VERIFIED)


async def test_a_run_that_is_taken_away_and_comes_back(intake: Engine) -> None:
    pushed = push(intake.site, leaf="Run_2026-04-17T15-00")
    await until_state(intake, pushed.run, STAGING)
    aside = intake.site.lab.folder / "aside"
    pushed.folder.rename(aside)
    await until_held(intake, pushed.run, pb.STAGING_HOLD_GONE)
    aside.rename(pushed.folder)
    pushed.finish()
    await until_state(intake, pushed.run, VERIFIED)


async def test_two_engines_and_one_staging_root(intake: Engine) -> None:
    async with new_site() as other:
        other.equip()
        other.lab.settings["orchestrator"] = intake.site.lab.settings["orchestrator"]
        async with running_engine(other) as second:
            pushed = push(intake.site, leaf="Run_2026-04-17T15-10")
            pushed.finish()
            await until_state(intake, pushed.run, VERIFIED)
            page = await second.staged()
            assert (page.driving, len(page.runs)) == (False, 0)
            assert "another program drives" in page.problem
            assert (await intake.staged()).driving
            clear = second.staging.ClearStagedRuns(pb.ClearStagedRunsRequest(runs=[pushed.run], reason="full"))
            assert (await refused(clear))[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "STAGING_NOT_DRIVEN")
            assert "staging_root_not_driven" in other.lab.log_text("sync_engine")


async def test_pages_and_states(intake: Engine) -> None:
    runs = sorted(push(intake.site, leaf=f"Run_2026-04-17T16-1{n}").run for n in range(5))
    for run in runs:
        await until_state(intake, run, STAGING)
    listed: list[str] = []
    page = await intake.staged(page_size=2, states=[STAGING])
    while True:
        listed += [r.run for r in page.runs]
        if not page.next_page_token:
            break
        page = await intake.staged(page_size=2, states=[STAGING], page_token=page.next_page_token)
    assert [run for run in listed if run in runs] == runs
    assert {r.state for r in (await intake.staged(states=[COMPLETE])).runs} <= {COMPLETE}
    for wrong in ({"page_size": 1001}, {"page_token": "x"}, {"states": [99]}):
        assert (await refused(intake.staged(**wrong)))[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_without_a_staging_root_there_is_nothing() -> None:
    async with new_site() as site:
        site.equip()
        async with running_engine(site) as engine:
            page = await engine.staged()
            assert (page.staging_root, page.driving, list(page.runs)) == ("", False, [])
            clear = engine.staging.ClearStagedRuns(pb.ClearStagedRunsRequest(runs=["E/P/Runs/Run_1"], dry_run=True))
            assert (await refused(clear))[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "STAGING_NOT_DRIVEN")
