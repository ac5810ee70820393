"""labferry run export: a bag that the library of its inventors finds valid, with metadata from the event log."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import bagit
import pytest

from cli.commands.run_export import until_done
from tests.e2e.terminal import NO, NOT_FOUND, Operator
from tests.integration.sync_engine.running_engine import new_site, running_engine


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
    assert "3 files" in told.out
    bag = bagit.Bag(str(to))
    bag.validate()
    assert bag.info["External-Identifier"] == run
    assert set(bag.entries) >= {"data/a.tif", "data/sub/größe 2.csv", "data/sub/empty"}
    for name, content in files.items():
        assert (to / "data" / str(name)).read_bytes() == content
    crate = {one["@id"]: one for one in json.loads((to / "data/ro-crate-metadata.json").read_text("utf-8"))["@graph"]}
    assert crate["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    root = crate["./"]
    assert root["identifier"] == run
    assert [crate[part["@id"]]["name"] for part in root["hasPart"]] == sorted(map(str, files))
    said = {(p["propertyID"], p["value"]) for p in root["additionalProperty"]}
    assert said >= {("symbolic_link", "sub/link -> ../a.tif"), ("empty_folder", "none yet/deep")}
    assert json.loads((to / ".exlab-wizard/creation.json").read_text("utf-8"))["sync_status"] == "synced"
    happened = [crate[action["@id"]]["name"] for action in root["mentions"]]
    assert "sync.job.verified.v1" in happened
    assert "sync.job.sealed.v1" in happened
    assert {one["agent"]["@id"] for one in crate.values() if one["@type"] == "Action"} <= set(crate)
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


async def test_a_bag_of_an_amended_run_tells_of_all_its_jobs(operator: Operator, tmp_path: Path) -> None:
    run = operator.site.make_run()
    for name in ("b.tif", "100%.csv"):
        await operator("run", "queue", run)
        assert (await operator("job", "watch", "--run", run)).status == 0
        (operator.site.local(run) / name).write_bytes(name.encode())
    await operator("run", "queue", run)
    assert (await operator("job", "watch", "--run", run)).status == 0
    told = await operator("run", "export", run, "--to", str(tmp_path / "bag"))
    assert (told.status, "4 files" in told.out) == (0, True), told
    assert told.err.startswith("100%.csv: listed as RFC 8493 says")
    crate = json.loads((tmp_path / "bag/data/ro-crate-metadata.json").read_text("utf-8"))["@graph"]
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
            (site.local(run) / "a.tif").unlink()
            export = partial(Operator(site), "run", "export", run, "--to", str(tmp_path / "bag"))
            lost = await export()
            assert lost.status == NO
            assert "behind rclone" in lost.err
            assert "--from" in lost.err
            assert (await export("--from", str(site.at_nas(run)))).status == 0
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
