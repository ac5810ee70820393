"""Tools are looked for when the engine starts: one that is missing or too old stops its own destinations alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cli.commands.doctor import _destination
from labferry.sync.v1 import equipment_service_pb2, job_pb2
from libs.run_tree.receipt import read_receipt
from tests.integration.sync_engine.running_engine import Engine, Site, new_site, running_engine
from tests.integration.transfer.far_servers import running_sshd

OLD_RCLONE = "#!/bin/sh\necho 'rclone v1.60.1-DEV'\n"


def equip_by_ssh(site: Site, equipment: str, transport: dict[str, Any]) -> None:
    site.equip(equipment, destinations=[{"name": "far", "transport": transport}])


def rsync_ssh(site: Site, equipment: str, **settings: Any) -> dict[str, Any]:
    return {"type": "rsync_ssh", "ssh_target": "nobody@127.0.0.1", "remote_path": str(site.nas(equipment)), **settings}


async def destination(engine: Engine, equipment: str) -> equipment_service_pb2.DestinationStatus:
    request = equipment_service_pb2.GetEquipmentRequest(equipment_id=equipment)
    answer = (await engine.equipment.GetEquipment(request)).destinations[0]
    assert isinstance(answer, equipment_service_pb2.DestinationStatus)
    return answer


async def test_a_missing_and_an_old_tool_are_told_and_the_rest_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rclone").write_text(OLD_RCLONE)
    (tmp_path / "rclone").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    async with new_site() as site:
        site.equip()
        equip_by_ssh(site, "BY_RSYNC", rsync_ssh(site, "BY_RSYNC"))
        equip_by_ssh(site, "BY_RCLONE", {"type": "rclone", "rclone_remote": "far", "rclone_remote_path": str(tmp_path)})
        async with running_engine(site) as engine:
            lines = [json.loads(line) for line in site.lab.log_text("sync_engine").splitlines()]
            told = {line["transport"]: line for line in lines if line.get("event") == "transport_unusable"}
            assert {line["level"] for line in told.values()} == {"error"}
            assert "rsync is not installed; it was looked for in" in told["rsync_ssh"]["problem"]
            assert "rclone 1.69 or newer is needed" in told["rclone"]["problem"]
            assert told["rclone"]["destinations"] == ["BY_RCLONE/far"]
            await engine.bring(site.make_run())
            for equipment, kind in (("BY_RSYNC", "rsync_ssh"), ("BY_RCLONE", "rclone")):
                status = await destination(engine, equipment)
                assert (status.reachable, status.problem) == (False, told[kind]["problem"])
                check = _destination(equipment, status)
                assert not check.ok and status.problem in check.detail
                job_id = (await engine.enqueue(site.make_run(equipment=equipment))).job.job_id
                failed = await engine.until_failed(job_id)
                assert failed.failure.kind == job_pb2.FAILURE_KIND_CONFIGURATION
                assert failed.failure.message == told[kind]["problem"]
            for name in ("rsync", "ssh"):
                (tmp_path / name).symlink_to(shutil.which(name, path="/usr/bin:/bin") or name)
            assert "not installed" not in (await destination(engine, "BY_RSYNC")).problem


async def test_versions_stand_in_the_probe_the_log_and_the_receipt(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "sshd") as sshd:
        async with new_site() as site:
            transport = rsync_ssh(
                site,
                "CONFOCAL_01",
                ssh_target=sshd.access.target,
                ssh_port=sshd.access.port,
                ssh_key_path=str(sshd.access.key_path),
                known_hosts=str(sshd.access.known_hosts),
            )
            equip_by_ssh(site, "CONFOCAL_01", transport)
            async with running_engine(site) as engine:
                run = site.make_run()
                await engine.bring(run)
                stream = "destination-CONFOCAL_01/far"
                await engine.until_event(stream, "sync.destination.probed.v1")
                status = await destination(engine, "CONFOCAL_01")
                versions = {tool.name: tool.version for tool in status.probe.tools}
                assert versions.keys() == {"rsync", "ssh"}
                assert versions["rsync"].startswith("3.")
                assert list(status.tools) == list(status.probe.tools)
                assert (status.probe.keeps_symlinks, status.probe.keeps_empty_folders) == (True, True)
                assert f"rsync {versions['rsync']}" in _destination("CONFOCAL_01", status).detail
                content = (site.at_nas(run) / ".exlab-wizard/receipt.far.json").read_bytes()
                assert read_receipt(content).receipt.tools.items() >= versions.items()
