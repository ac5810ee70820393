"""AdoptRun: a foreign folder becomes a run, by copying; the source is never changed."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from labferry.sync.v1 import run_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import (
    EQUIPMENT,
    PROJECT,
    Engine,
    Site,
    running_engine,
    same_tree,
    start_engine,
)
from tests.integration.sync_engine.test_bad_input import refused, wrong_fields


def _foreign(site: Site, name: str = "scan 7") -> Path:
    folder = site.local_root / "incoming" / name
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "a.tif").write_bytes(os.urandom(50_000))
    (folder / "deep" / "er" / "ü.csv").write_bytes(b"1;2")
    (folder / "latest").symlink_to("a.tif")
    os.utime(folder / "a.tif", (1_760_000_000, 1_760_000_000))
    return folder


def _request(folder: Path | str, **fields: Any) -> sync_service_pb2.AdoptRunRequest:
    return sync_service_pb2.AdoptRunRequest(
        **{
            "source_folder": str(folder),
            "equipment_id": EQUIPMENT,
            "project": PROJECT,
            "operator": "asmith",
            **fields,
        }
    )


async def test_a_foreign_folder_becomes_a_run_that_can_be_brought(engine: Engine) -> None:
    site = engine.site
    source = _foreign(site)
    before = {p: p.lstat() for p in sorted(source.rglob("*"))}
    run = await engine.sync.AdoptRun(_request(source, request_id="adopt-1"))
    started = datetime.fromtimestamp(1_760_000_000, tz=UTC)
    assert run.run == f"{EQUIPMENT}/{PROJECT}/Runs/Run_{started:%Y-%m-%dT%H-%M}"
    assert run.run_kind == run_pb2.RUN_KIND_EXPERIMENTAL
    same_tree(source, site.local(run.run))
    creation = site.creation(run.run)
    assert (creation["schema_version"], creation["level"], creation["run_kind"]) == ("1.8", "run", "experimental")
    assert creation["created_by"] == "asmith"
    group = json.loads((site.local(run.run).parent / ".exlab-wizard" / "runs.json").read_text())
    assert (group["project"], group["equipment"], group["run_kind"]) == (PROJECT, EQUIPMENT, "experimental")
    known = json.loads((site.local_root / EQUIPMENT / ".exlab-wizard" / "equipment.json").read_text())
    assert (known["id"], known["configured_local_root"]) == (EQUIPMENT, str(site.local_root))
    for path, status in before.items():
        now = path.lstat()
        assert (now.st_mtime_ns, now.st_size, now.st_ino) == (status.st_mtime_ns, status.st_size, status.st_ino)
    again = await engine.sync.AdoptRun(_request(source, request_id="adopt-1"))
    assert again.run == run.run
    await engine.bring(run.run)
    same_tree(source, site.at_nas(run.run))


async def test_what_can_not_be_adopted(engine: Engine) -> None:
    site = engine.site
    source = _foreign(site)
    outside = site.lab.folder / "elsewhere"
    outside.mkdir()
    for folder in (outside, "/etc", f"{site.local_root}/../elsewhere", "relative"):
        code, reason, _ = await refused(engine.sync.AdoptRun(_request(folder)))
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PATH_OUTSIDE_ROOTS"), folder
    assert (await refused(engine.sync.AdoptRun(_request(site.local_root / "nope"))))[0] == grpc.StatusCode.NOT_FOUND
    unknown = await refused(engine.sync.AdoptRun(_request(source, equipment_id="NOPE")))
    assert unknown[:2] == (grpc.StatusCode.NOT_FOUND, "EQUIPMENT_NOT_CONFIGURED")
    named = await wrong_fields(engine.sync.AdoptRun(sync_service_pb2.AdoptRunRequest(project="../x")))
    assert named == {"source_folder", "equipment_id", "project", "operator"}
    empty = site.local_root / "incoming" / "empty"
    empty.mkdir()
    assert (await refused(engine.sync.AdoptRun(_request(empty))))[1] == "SOURCE_UNREADABLE"
    await engine.sync.AdoptRun(_request(source))
    assert (await refused(engine.sync.AdoptRun(_request(source))))[:2] == (
        grpc.StatusCode.ALREADY_EXISTS,
        "RUN_EXISTS",
    )
    runs = site.local_root / EQUIPMENT / PROJECT / "Runs"
    assert len(list(runs.glob("*Run_*"))) == 1


async def test_an_adoption_that_was_cut_off_leaves_nothing_half_done(site: Site) -> None:
    staged = site.local_root / EQUIPMENT / PROJECT / "Runs" / ".labferry-adopting-Run_2026-01-01T00-00"
    staged.mkdir(parents=True)
    (staged / "half.tif").write_bytes(b"half")
    engine = await start_engine(site)
    assert not staged.exists()
    source = _foreign(site)
    run = (await engine.sync.AdoptRun(_request(source, request_id="once"))).run
    await engine.kill()
    # As if the engine had died between its event and the rename.
    final = site.local(run)
    final.rename(final.with_name(".labferry-adopting-" + final.name))
    async with running_engine(site) as engine:
        same_tree(source, site.local(run))
        assert (await engine.sync.AdoptRun(_request(source, request_id="once"))).run == run


async def test_cache_files_that_others_wrote_by_hand_stay_and_stop_no_adoption(engine: Engine) -> None:
    site = engine.site
    broken = {
        site.local_root / EQUIPMENT / ".exlab-wizard" / "equipment.json": "{ by hand",
        site.local_root / EQUIPMENT / PROJECT / "Runs" / ".exlab-wizard" / "runs.json": "[]",
    }
    for path, content in broken.items():
        path.parent.mkdir(parents=True)
        path.write_text(content)
    run = await engine.sync.AdoptRun(_request(_foreign(site)))
    assert site.creation(run.run)["level"] == "run"
    assert {path: path.read_text() for path in broken} == broken
