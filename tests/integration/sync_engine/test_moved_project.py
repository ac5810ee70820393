"""A project that was moved away at the storage, with a symlink in its place: refused, and told by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cli.why import answers
from labferry.sync.v1 import job_pb2, sync_service_pb2
from tests.integration.sync_engine.running_engine import PROJECT, Engine, Site, running_engine
from tests.integration.sync_engine.test_bad_input import refused
from tests.integration.sync_engine.test_far_transports import rsync_ssh
from tests.integration.transfer.far_servers import running_sshd


async def look_at_a_moved_project(site: Site, to_move_away: str) -> None:
    run = site.make_run()
    async with running_engine(site) as engine:
        await engine.bring(run)
        project = site.at_nas(run).parents[1]
        assert project.name == PROJECT
        project.symlink_to(project.rename(site.lab.folder / "volume2"))
        later = site.make_run(leaf="Run_2026-05-01T00-00")
        failed = await engine.until_failed((await engine.enqueue(later)).job.job_id)
        assert failed.failure.kind == job_pb2.FAILURE_KIND_DESTINATION_FILE_DIFFERS
        assert PROJECT in failed.failure.message
        assert later not in failed.failure.message
        (answer,) = answers(await engine.run(later), [])
        assert answer.to_do == (to_move_away, f'labferry job retry {failed.job_id} --reason "WHY"')
        assert "in vain as long as that is in the way there" in await after_a_pass_in_vain(engine, run)


async def after_a_pass_in_vain(engine: Engine, run: str) -> str:
    request = sync_service_pb2.VerifyRunRequest(run=run, reason="audit")
    assert (await refused(engine.sync.VerifyRun(request)))[1] == "DESTINATION_UNUSABLE"
    (answer,) = answers(await engine.run(run), [])
    assert answer.condition == "verification_failed"
    return answer.detail


async def test_at_a_mounted_storage(site: Site) -> None:
    await look_at_a_moved_project(site, f"move away at the storage what lies in the place of {PROJECT}; then:")


async def test_at_a_far_host(site: Site, tmp_path: Path) -> None:
    with running_sshd(tmp_path / "sshd") as sshd:
        transport: dict[str, Any] = rsync_ssh(site, sshd)
        site.lab.settings["equipment"] = []
        site.equip(destinations=[{"name": "far", "transport": transport}])
        await look_at_a_moved_project(site, "move away at the storage what the failure names, then:")
