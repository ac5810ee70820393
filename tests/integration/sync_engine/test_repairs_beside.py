"""What is odd in a copy keeps no other file of it from being repaired (SPEC §4)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.sync_engine.test_destinations import mounted_tmpfs
from tests.integration.sync_engine.running_engine import Site, running_engine
from tests.integration.sync_engine.test_audits import AT_ONCE, FAILED, rot, rotted
from tests.integration.sync_engine.test_audits_move_on import until_events
from tests.integration.sync_engine.test_far_transports import rclone, rsync_ssh
from tests.integration.transfer.far_servers import Sshd, running_sshd

LANDED = "sync.job.repair_landed.v1"
FILES: dict[str | bytes, bytes] = {
    "a": b"pixels",
    "gone/x": b"x" * 5000,
    "led/y": b"y" * 5000,
    "sub/b.bin": b"b" * 5000,
    "sub/c": b"c",
    "z": b"z",
}


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("beside") / "sshd") as running:
        yield running


def mounted(site: Site, sshd: Sshd) -> dict[str, Any]:
    return {"type": "mounted", "path": str(site.nas())}


@pytest.mark.parametrize(
    ("transport", "moves_folders", "sees_symlinks"),
    [(mounted, True, True), (rsync_ssh, False, True), (rclone, False, False)],
)
async def test_each_file_that_can_be_repaired_is_and_of_the_others_the_log_says_why_not(
    site: Site,
    sshd: Sshd,
    tmp_path: Path,
    transport: Callable[[Site, Sshd], dict[str, Any]],
    moves_folders: bool,
    sees_symlinks: bool,
) -> None:
    site.lab.settings["equipment"].clear()
    site.equip(destinations=[{"name": "far", "transport": transport(site, sshd)}])
    site.lab.settings.update(verify={"audit_interval_hours": 1000})
    run = site.make_run(FILES)
    for name in FILES:
        # SFTP knows whole seconds.
        os.utime(site.local(run) / os.fsdecode(name), ns=(0, 1_700_000_000_000_000_000))
    async with running_engine(site) as engine:
        job = await engine.bring(run)
    copy, stream = site.at_nas(run), f"job-{job.job_id}"
    rot(copy / "a")
    (copy / "z").unlink()
    (copy / "sub/b.bin").unlink()
    (copy / "sub/b.bin").mkdir()
    (copy / "sub/b.bin/x").write_bytes(b"somebody's")
    (copy / "gone/x").unlink()
    (copy / "gone").rmdir()
    (copy / "gone").write_bytes(b"in the way")
    elsewhere = tmp_path / "led"
    (copy / "led").rename(elsewhere)
    rot(elsewhere / "y")
    spoiled = (elsewhere / "y").read_bytes()
    if sees_symlinks:
        (copy / "led").symlink_to(elsewhere)
    else:
        # That server follows them (docs/threat-model.md).
        elsewhere.rename(copy / "led")
    site.lab.settings["verify"]["audit_interval_hours"] = AT_ONCE
    async with running_engine(site) as engine:
        await engine.until_event(stream, LANDED)
        failed = (await engine.event_types(stream)).count(FAILED)
        await until_events(engine, stream, FAILED, failed + 1)
        why = (await engine.job(job.job_id)).repair_problem
        assert why.startswith("not put back: ") and "is no folder at the destination" in why
    for name in ("a", "z", "sub/c", *(["sub/b.bin"] if moves_folders else [])):
        assert (copy / name).read_bytes() == FILES[name], name
    assert (copy / "gone").read_bytes() == b"in the way"
    blocked = {"gone"}
    if sees_symlinks:
        assert [(path.name, path.read_bytes()) for path in elsewhere.iterdir()] == [("y", spoiled)]
        blocked.add("led")
    else:
        assert (copy / "led/y").read_bytes() == FILES["led/y"]
    if not moves_folders:
        assert (copy / "sub/b.bin/x").read_bytes() == b"somebody's"
        blocked.add("sub/b.bin")
    lines = map(json.loads, site.lab.log_text("sync_engine").splitlines())
    refused = [line for line in lines if line.get("event") == "copy_not_repaired"]
    assert {line.get("path") for line in refused} == blocked
    assert all(line["problem"] for line in refused)


async def test_nothing_is_moved_that_has_no_room_to_be_sent_anew(site: Site) -> None:
    with mounted_tmpfs(site.nas(), "size=8m"):
        site.lab.settings.update(verify={"audit_interval_hours": 1000})
        async with running_engine(site) as engine:
            run = site.make_run({"big.bin": os.urandom(3 << 20)})
            job = await engine.bring(run)
        rot(site.at_nas(run) / "big.bin")
        filler = site.nas() / "filler"
        filler.write_bytes(bytes(3 << 20))
        site.lab.settings["verify"]["audit_interval_hours"] = AT_ONCE
        async with running_engine(site) as engine:
            await until_events(engine, f"job-{job.job_id}", FAILED, 2)
            assert (site.at_nas(run) / "big.bin").exists()
            assert not (site.nas() / ".labferry-superseded").exists()
            why = (await engine.job(job.job_id)).repair_problem
            assert why.startswith("not put back: ") and "bytes are to be sent and" in why
            assert why in next(f for f in await rotted(engine, run) if f.offending_path == run).rule_detail
            filler.unlink()
            await until_events(engine, f"job-{job.job_id}", LANDED, 1)
            mended = await engine.until(job.job_id, lambda u: u.job.verify_passes > 0)
            assert mended.repair_problem == ""
