"""labferry run export: a bag that the library of its inventors finds valid, with metadata from the event log."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import bagit
import pytest
from typer.testing import CliRunner

from cli.commands.run_export import until_done
from cli.main import app
from tests.e2e.terminal import NO, NOT_FOUND, Operator
from tests.integration.sync_engine.running_engine import new_site, running_engine
from tests.unit.cli.ro_crate_rules import broken_rules

USAGE = 2
VERIFIER = Path(__file__).parents[2] / "docs" / "verify_receipt.py"


async def test_a_bag_with_metadata(operator: Operator, tmp_path: Path) -> None:
    files: dict[str | bytes, bytes] = {"a.tif": b"pixels", "sub/größe 2.csv": b"1,2\n", "sub/empty": b""}
    run = operator.site.make_run(files)
    (operator.site.local(run) / "none yet/deep").mkdir(parents=True)
    (operator.site.local(run) / "sub/link").symlink_to("../a.tif")
    to = tmp_path / "bag"
    assert (await operator("run", "export", run, "--to", str(to))).status == NOT_FOUND
    await operator("run", "queue", run)
    assert (await operator("job", "watch", "--run", run)).status == 0
    (operator.site.local(run) / "a.tif").unlink()
    told = await operator("run", "export", run, "--destination", "default", "--to", str(to))
    assert (told.status, told.err) == (0, "")
    assert "3 files, 10 B (3 from default)" in told.out
    bag = bagit.Bag(str(to))
    bag.validate()
    assert bag.info["External-Identifier"] == run
    assert set(bag.entries) >= {"data/a.tif", "data/sub/größe 2.csv", "data/sub/empty"}
    for name, content in files.items():
        assert (to / "data" / str(name)).read_bytes() == content
    document = json.loads((to / "data/ro-crate-metadata.json").read_text("utf-8"))
    assert broken_rules(document) == []
    crate = {one["@id"]: one for one in document["@graph"]}
    assert crate["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    root = crate["./"]
    assert root["identifier"] == run
    assert [crate[part["@id"]]["name"] for part in root["hasPart"]] == sorted(map(str, files))
    said = {(p["propertyID"], p["value"]) for p in (crate[each["@id"]] for each in root["additionalProperty"])}
    assert said >= {("symbolic_link", "sub/link -> ../a.tif"), ("empty_folder", "none yet/deep")}
    assert json.loads((to / ".exlab-wizard/creation.json").read_text("utf-8"))["sync_status"] == "synced"
    happened = [crate[action["@id"]]["name"] for action in root["mentions"]]
    assert "sync.job.verified.v1" in happened
    assert "sync.job.sealed.v1" in happened
    assert {one["agent"]["@id"] for one in crate.values() if one["@type"] == "Action"} <= set(crate)
    receipt = str(to / "receipt.default.json")
    held = await operator("receipt", "verify", receipt, "--run", str(to / "data"), "-o", "json")
    assert (held.status, held.json["problems"], held.json["beside"]) == (0, [], 1)
    script = [sys.executable, "-I", str(VERIFIER), receipt, str(to / "data")]
    assert subprocess.run(script, check=False, capture_output=True).returncode == 0
    again = await operator("run", "export", run, "--to", str(to))
    assert (again.status, "exists; it is not replaced" in again.err) == (NO, True)
    (operator.site.at_nas(run) / "a.tif").write_bytes(b"PIXELS")
    rotten = await operator("run", "export", run, "--to", str(tmp_path / "other"))
    assert rotten.status == NO
    assert "a.tif: nowhere with the content that was verified" in rotten.err
    assert not list(tmp_path.glob("other*"))
    (to / "data/a.tif").write_bytes(b"PIXELS")
    with pytest.raises(bagit.BagValidationError):
        bag.validate()


@pytest.mark.parametrize("given", ["nowhere", "file"])
def test_folders_that_are_not_there_are_refused(tmp_path: Path, given: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    for options in (("--to", "bag", "--from", given), ("--to", f"{given}/bag")):
        said = [option if option.startswith("--") else str(tmp_path / option) for option in options]
        refused = CliRunner().invoke(app, ["run", "export", "E/P/Runs/Run_1", *said])
        assert (refused.exit_code, options[-2] in refused.output) == (USAGE, True)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


async def test_no_bag_is_made_of_a_receipt_and_other_files_than_it_tells_of(tmp_path: Path) -> None:
    async with new_site() as site:
        site.equip()
        run = site.make_run()
        async with running_engine(site) as engine:
            await engine.bring(run)
            (site.local(run) / "late.tif").write_bytes(b"late")
            (site.at_nas(run) / ".exlab-wizard/checksums.sha256").unlink()
            in_the_way = site.at_nas(run) / ".exlab-wizard/checksums.sha256/folder"
            in_the_way.mkdir(parents=True)
            late = (await engine.enqueue(run)).job.job_id
            await engine.until_event(f"job-{late}", "sync.job.verified.v1")
            told = await Operator(site)("run", "export", run, "--to", str(tmp_path / "bag"))
            assert told.status == NO
            assert "the run is to be sealed there first" in told.err
            assert not list(tmp_path.iterdir())


async def test_a_bag_of_an_amended_run_tells_of_all_jobs_and_of_rot(operator: Operator, tmp_path: Path) -> None:
    run = operator.site.make_run()
    for name in ("b.tif", "100%.csv"):
        await operator("run", "queue", run)
        assert (await operator("job", "watch", "--run", run)).status == 0
        (operator.site.local(run) / name).write_bytes(name.encode())
    await operator("run", "queue", run)
    assert (await operator("job", "watch", "--run", run)).status == 0
    (operator.site.at_nas(run) / "a.tif").write_bytes(b"ROTTEN")
    record = operator.site.at_nas(run) / ".exlab-wizard/creation.json"
    record.unlink()
    record.mkdir()
    told = await operator("run", "export", run, "--to", str(tmp_path / "bag"))
    assert (told.status, "4 files, 23 B (3 from default, 1 from the local folder)" in told.out) == (0, True), told
    rotten, strange = told.err.splitlines()
    assert rotten.startswith("a.tif: the copy at default doesn't hold this as it was verified")
    assert f"labferry run verify '{run}'" in rotten
    assert strange.startswith("100%.csv: listed as RFC 8493 says")
    assert (tmp_path / "bag/data/a.tif").read_bytes() == b"pixels"
    crate = json.loads((tmp_path / "bag/data/ro-crate-metadata.json").read_text("utf-8"))["@graph"]
    (root,) = [one for one in crate if one["@id"] == "./"]
    assert root["description"].endswith("copied: 3 from default, 1 from the local folder")
    assert len([one for one in crate if one.get("name") == "sync.job.verified.v1"]) == 3


async def test_what_lies_behind_a_remote_is_fetched_first(tmp_path: Path) -> None:
    async with new_site() as site:
        config = site.lab.folder / "rclone.conf"
        config.write_text("[far]\ntype = local\n")
        remote = {"rclone_remote": "far", "rclone_remote_path": str(site.nas()), "rclone_config": str(config)}
        site.equip(destinations=[{"name": "far", "transport": {"type": "rclone", **remote}}])
        async with running_engine(site) as engine:
            run = site.make_run()
            await engine.bring(run)
            from_here = await Operator(site)("run", "export", run, "--to", str(tmp_path / "from here"))
            assert (from_here.status, from_here.err) == (0, "")
            assert "(2 from the local folder)" in from_here.out
            (site.local(run) / "a.tif").unlink()
            export = partial(Operator(site), "run", "export", run, "--to", str(tmp_path / "bag"))
            lost = await export()
            assert lost.status == NO
            assert "behind rclone" in lost.err
            assert "--from" in lost.err
            fetched = await export("--from", str(site.at_nas(run)))
            assert (fetched.status, "(2 from the given folder)" in fetched.out) == (0, True)
    bagit.Bag(str(tmp_path / "bag")).validate()


async def test_an_export_that_nobody_waits_for_ends() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(stopped: Callable[[], bool]) -> None:
        begun.set()
        while not stopped():
            ended.wait(0.01)
        ended.set()

    waiting = asyncio.create_task(until_done(work))
    await asyncio.to_thread(begun.wait, 60)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.to_thread(ended.wait, 60)


@pytest.mark.parametrize("among", ["the runs", "the copies"])
async def test_no_bag_is_made_among_the_runs(operator: Operator, among: str) -> None:
    site = operator.site
    run = site.make_run()
    folder = site.local(run) if among == "the runs" else site.nas()
    refused = await operator("run", "export", run, "--to", str(folder / "bag"))
    assert refused.status == USAGE
    assert "among the runs" in refused.err
    assert not (folder / "bag").exists()
