"""A destination that is the run's own folder by another name never counts as a copy: refused where this machine can see
it, and noticed before a deletion where it can't.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from labferry.sync.v1 import finding_pb2, job_pb2, problem_service_pb2, sync_service_pb2
from tests.integration.secrets.running_service import ServiceEndedError
from tests.integration.sync_engine.running_engine import PATIENCE, Engine, Site, new_site, running_engine, start_engine
from tests.integration.sync_engine.test_cleanup import ALLOWED, clean, data_files, lacking, verify
from tests.integration.sync_engine.test_far_transports import rclone, rsync_ssh
from tests.integration.transfer.far_servers import Sshd, running_sshd

DATA = {"a.tif", "sub/b.csv"}
WRONG_CONFIGURATION = 78
LEFTOVER = "copy-mark.0123456789abcdef0123456789abcdef.tmp"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("far") / "sshd") as running:
        yield running


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[Site]:
    """A site without equipment, whose configuration lets local data be deleted after two passes."""
    async with new_site() as site:
        site.lab.settings["nas_cleanup"] = dict(ALLOWED)
        yield site


@contextmanager
def leading_to(folder: Path, place: Path) -> Iterator[bool]:
    """`place` is `folder` by another name: a bind mount, or a symlink where mounting isn't permitted. Whether it is
    mounted."""
    place.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "--bind", folder, place], capture_output=True, check=False).returncode == 0
    if not mounted:
        place.rename(place.with_name(f"{place.name} before"))
        place.symlink_to(folder)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", place], check=True)


def rclone_here(site: Site, sshd: Sshd) -> dict[str, Any]:
    config = site.lab.folder / "rclone.conf"
    config.write_text("[here]\ntype = local\n")
    path = str(site.local_root / "CONFOCAL_01")
    return {"type": "rclone", "rclone_remote": "here", "rclone_remote_path": path, "rclone_config": str(config)}


def rsync_here(site: Site, sshd: Sshd) -> dict[str, Any]:
    return {**rsync_ssh(site, sshd), "remote_path": str(site.local_root / "CONFOCAL_01")}


async def refused_start(site: Site) -> list[str]:
    """What the engine says is wrong with the configuration."""
    with pytest.raises(ServiceEndedError) as failed:
        await start_engine(site)
    assert "Traceback" not in failed.value.log
    assert failed.value.status == WRONG_CONFIGURATION, failed.value.log
    return failed.value.log.splitlines()


async def not_elsewhere(engine: Engine) -> list[finding_pb2.Finding]:
    request = problem_service_pb2.QueryProblemsRequest()
    found = [f async for f in engine.problems.QueryProblems(request)]
    return [f for f in found if f.rule == finding_pb2.RULE_COPY_NOT_ELSEWHERE]


async def test_a_path_that_leads_into_the_source_stops_the_start(bare: Site, tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("AS_LINK", "AS_MOUNT", "ABOVE", "STAGED", "TWICE")}
    staging = tmp_path / "staging"
    staging.mkdir()
    bare.lab.settings["orchestrator"] = {"staging_root": str(staging)}
    for equipment, path in places.items():
        if equipment != "TWICE":
            bare.equip(equipment, transport={"path": str(path)})
    places["AS_LINK"].symlink_to(bare.local_root / "AS_LINK")
    places["ABOVE"].symlink_to(bare.local_root.parent)
    (staging / "below").mkdir()
    places["STAGED"].symlink_to(staging / "below")
    (tmp_path / "real").mkdir()
    places["TWICE"].symlink_to(tmp_path / "real")
    named = {"nas": tmp_path / "real", "again": places["TWICE"]}
    two = [{"name": name, "transport": {"type": "mounted", "path": str(path)}} for name, path in named.items()]
    bare.equip("TWICE", destinations=two)
    with leading_to(bare.local_root / "AS_MOUNT", places["AS_MOUNT"]):
        said = await refused_start(bare)
    for key in (*(f"equipment[{n}].transport.path" for n in range(4)), "equipment[4].destinations[1].transport.path"):
        assert len([line for line in said if key in line]) == 1, said
    assert "5 mistakes" in "\n".join(said)
    assert "one copy would count as two" in "\n".join(said)


async def test_two_equipment_that_would_write_to_one_place_stop_the_start(bare: Site, tmp_path: Path) -> None:
    (tmp_path / "real" / "below").mkdir(parents=True)
    for equipment, path in (("ONE", tmp_path / "real"), ("OTHER", tmp_path / "link"), ("THIRD", tmp_path / "nested")):
        bare.equip(equipment, transport={"path": str(path)})
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "nested").symlink_to(tmp_path / "real/below")
    said = "\n".join(await refused_start(bare))
    assert "2 mistakes" in said
    assert said.count("their runs would meet there") == 2


async def test_a_destination_that_becomes_the_source_later_gets_nothing_and_allows_nothing(bare: Site) -> None:
    bare.equip()
    nas, source = bare.nas(), bare.local_root / "CONFOCAL_01"
    async with running_engine(bare) as engine:
        run, later = bare.make_run(), bare.make_run(leaf="Run_2026-04-17T15-00")
        await engine.bring(run)
        assert await verify(engine, run)
        nas.rename(nas.with_name("away"))
        nas.symlink_to(source)
        (source / ".labferry-incoming").mkdir()
        held = await clean(engine, run)
        assert "destinations_answer" in lacking(held)
        assert any("a copy there would be the run" in i.detail for i in held.interlocks)
        job = await engine.until_failed((await engine.enqueue(later)).job.job_id)
        assert job.failure.kind == job_pb2.FAILURE_KIND_CONFIGURATION
        assert "a copy there would be the run" in job.failure.message
        assert data_files(bare.local(run)) == data_files(bare.local(later)) == DATA
        nas.unlink()
        nas.with_name("away").rename(nas)
        # The reaper may be asking the destination at this moment, with a question that began before it was back.
        while not (answer := await clean(engine, run)).cleaned:
            asked = {i.name for i in answer.interlocks if not i.satisfied and not i.not_asked}
            assert asked == {"destinations_answer"}, answer.interlocks


@pytest.mark.parametrize("transport", [rclone_here, rsync_here])
async def test_a_remote_that_is_the_source_is_noticed_before_a_deletion(
    bare: Site, sshd: Sshd, transport: Callable[[Site, Sshd], dict[str, Any]]
) -> None:
    bare.lab.settings["nas_cleanup"].update(min_verify_passes=1)
    bare.equip(destinations=[{"name": "far", "transport": transport(bare, sshd)}])
    async with running_engine(bare) as engine:
        run = bare.make_run()
        job = await engine.bring(run)
        await nothing_goes(engine, run)
        assert [w.condition for w in (await engine.job(job.job_id)).waiting_on] == [
            job_pb2.WAIT_CONDITION_CLEANUP_INTERLOCK
        ]


@pytest.mark.parametrize("name", ["sub/b.csv", "sub"])
async def test_a_symlink_behind_sftp_that_leads_back_is_no_copy(bare: Site, sshd: Sshd, name: str) -> None:
    bare.lab.settings["nas_cleanup"].update(min_verify_passes=1)
    bare.equip(destinations=[{"name": "far", "transport": rclone(bare, sshd)}])
    async with running_engine(bare) as engine:
        run = bare.make_run()
        await engine.bring(run)
        place = bare.at_nas(run) / name
        content = (bare.local(run) / "sub" / "b.csv").read_bytes()
        place.rename(bare.nas() / "moved away")
        place.symlink_to(bare.local(run) / name)
        request = sync_service_pb2.VerifyRunRequest(run=run, reason="audit")
        (report,) = [u.report async for u in engine.sync.VerifyRun(request) if u.HasField("report")]
        assert not report.passed
        assert "sub/b.csv" in {*report.missing, *report.differing}
        held = await clean(engine, run)
        # The pass puts a file in the link's place, from the run, and the cleanup may rest on that one.
        assert not held.cleaned or not place.is_symlink()
        kept = bare.at_nas(run) if held.cleaned else bare.local(run)
        assert (kept / "sub" / "b.csv").read_bytes() == content


async def test_one_place_by_two_transports_is_no_second_copy(bare: Site) -> None:
    bare.lab.settings["nas_cleanup"].update(min_verify_passes=1)
    config = bare.lab.folder / "rclone.conf"
    config.write_text("[here]\ntype = local\n")
    remote = {"rclone_remote": "here", "rclone_remote_path": str(bare.nas()), "rclone_config": str(config)}
    places = [{"name": "share", "transport": {"type": "mounted", "path": str(bare.nas())}}]
    bare.equip(destinations=[*places, {"name": "cloud", "transport": {"type": "rclone", **remote}}])
    async with running_engine(bare) as engine:
        run = bare.make_run()
        for job in (await engine.enqueue(run)).jobs:
            await engine.until_sealed(job.job_id)
        async with asyncio.timeout(PATIENCE):
            # The first copy is sealed again once the other is verified.
            while "sealed" in lacking(held := await clean(engine, run)):
                await asyncio.sleep(0.1)
        assert (held.cleaned, held.file_count, lacking(held)) == (False, 0, {"copy_is_elsewhere"})
        assert "the copies at share and cloud are one" in held.interlocks[-1].detail
        assert data_files(bare.local(run)) == DATA
        assert not list(bare.nas().rglob("copy-mark.*"))
        assert "are one" in (await not_elsewhere(engine))[0].rule_detail


async def test_a_project_that_is_mounted_over_its_own_copy_is_noticed_too(bare: Site) -> None:
    bare.equip()
    async with running_engine(bare) as engine:
        run = bare.make_run()
        project = bare.at_nas(run).parents[1]
        with leading_to(bare.local(run).parents[1], project) as mounted:
            if mounted:
                await engine.bring(run)
                assert await verify(engine, run)
                await nothing_goes(engine, run)
            else:
                await engine.until_failed((await engine.enqueue(run)).job.job_id)
            assert data_files(bare.local(run)) == DATA


async def nothing_goes(engine: Engine, run: str) -> None:
    """Every other interlock holds; the last one names the place, as a finding too, and no mark is left."""
    site = engine.site
    (site.local(run) / ".exlab-wizard" / LEFTOVER).write_bytes(b"of an engine that was killed")
    held = await clean(engine, run)
    assert (held.cleaned, held.file_count, lacking(held)) == (False, 0, {"copy_is_elsewhere"})
    assert str(site.local(run)) in held.interlocks[-1].detail
    assert data_files(site.local(run)) == DATA
    assert not list(site.local_root.rglob("copy-mark.*"))
    (finding,) = await not_elsewhere(engine)
    assert finding.run_path == run
    assert "is the run itself" in finding.rule_detail
