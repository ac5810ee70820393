"""The engine brings runs by rsync and rclone to a real sshd: from the request to a copy that sha256sum accepts."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cli.commands.doctor import _destination
from labferry.sync.v1 import equipment_service_pb2, job_pb2, sync_service_pb2
from tests.e2e.terminal import Operator
from tests.integration.sync_engine.running_engine import (
    Engine,
    Site,
    new_site,
    running_engine,
    same_tree,
    sha256sum_agrees,
)
from tests.integration.sync_engine.test_cleanup import ALLOWED, clean, data_files
from tests.integration.transfer.far_servers import Sshd, rclone_serving, running_samba, running_sshd

LARGE = 2000
# A password, and as `rclone obscure` writes it.
SECRET = "hunter2-in-no-command"
OBSCURED = "1he9sAZM04-GTq-v3vyaf_e4GH6W9Ug2vRh4BTTP8zrnQ2KC9Q"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("far") / "sshd") as running:
        yield running


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with new_site() as site:
        yield site


def rsync_ssh(site: Site, sshd: Sshd) -> dict[str, Any]:
    return {
        "type": "rsync_ssh",
        "ssh_target": sshd.access.target,
        "ssh_port": sshd.access.port,
        "ssh_key_path": str(sshd.access.key_path),
        "known_hosts": str(sshd.access.known_hosts),
        "remote_path": str(site.nas()),
    }


def rclone(site: Site, sshd: Sshd, hashing: str = "hashes = sha256\nsha256sum_command = sha256sum\n") -> dict[str, Any]:
    user, _, host = sshd.access.target.partition("@")
    config = Path(site.lab.folder / "rclone.conf")
    config.write_text(
        f"[far]\ntype = sftp\nhost = {host}\nport = {sshd.access.port}\nuser = {user}\n"
        f"key_file = {sshd.access.key_path}\nknown_hosts_file = {sshd.access.known_hosts}\nshell_type = unix\n{hashing}"
    )
    return {
        "type": "rclone",
        "rclone_remote": "far",
        "rclone_remote_path": str(site.nas()),
        "rclone_config": str(config),
    }


def equip(site: Site, transport: dict[str, Any]) -> None:
    site.equip(destinations=[{"name": "far", "transport": transport}])


@pytest.mark.parametrize("transport", [rsync_ssh, rclone])
async def test_from_the_request_to_a_sealed_copy(site: Site, sshd: Sshd, transport: Any) -> None:
    equip(site, transport(site, sshd))
    files = {"a b.tif": b"pixels", "sub/-x.csv": b"1,2\n", "sub/empty": b"", "ü/quote'.txt": b"x" * 100_000}
    run = site.make_run(files)
    for name in files:
        # SFTP knows whole seconds.
        os.utime(site.local(run) / name, ns=(0, 1_700_000_000_000_000_000))
    async with running_engine(site) as engine:
        job = await engine.bring(run)
        assert job.state == job_pb2.JOB_STATE_VERIFIED
        same_tree(site.local(run), site.at_nas(run))
        assert sha256sum_agrees(site.at_nas(run)) == len(files)
        assert site.creation(run)["sync_status"] == "synced"
        equipment = await engine.equipment.GetEquipment(
            equipment_service_pb2.GetEquipmentRequest(equipment_id="CONFOCAL_01")
        )
        (status,) = equipment.destinations
        assert status.probe.keeps_far_times == (transport is rsync_ssh)
        told = "alters modification times before 1970 or after 2106" in _destination("CONFOCAL_01", status).detail
        assert told == (transport is rclone), "SFTP's seconds have 32 bits and no sign"


async def test_a_share_that_keeps_no_capitals(site: Site, tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    with running_samba(tmp_path / "share", tmp_path / "samba", "preserve case = no") as port:
        config = site.lab.folder / "rclone.conf"
        config.write_text(f"[far]\ntype = smb\nhost = 127.0.0.1\nport = {port}\nuser = guest\n")
        remote = {"type": "rclone", "rclone_remote": "far", "rclone_config": str(config)}
        equip(site, {**remote, "rclone_remote_path": "lab"})
        run = site.make_run({"A1.tif": b"pixels", "small": b"pixels"})
        async with running_engine(site) as engine:
            failed = await engine.until_state((await engine.enqueue(run)).job.job_id, job_pb2.JOB_STATE_FAILED)
            assert failed.failure.kind == job_pb2.FAILURE_KIND_CONFIGURATION
            assert "preserve case = yes" in failed.failure.message
            assert os.listdir(tmp_path / "share") == [".labferry-incoming"]
            equipment = await engine.equipment.GetEquipment(
                equipment_service_pb2.GetEquipmentRequest(equipment_id="CONFOCAL_01")
            )
            (status,) = equipment.destinations
            assert status.probe.alters_case
            said = _destination("CONFOCAL_01", status)
            assert not said.ok
            assert "keeps names in another case than they are written in" in said.detail


async def test_a_bucket(site: Site, tmp_path: Path) -> None:
    """As rclone is configured for S3 by default: without markers for folders. A misspelt bucket is never made."""
    served = tmp_path / "served"
    (served / "bucket").mkdir(parents=True)
    site.lab.settings["nas_cleanup"] = ALLOWED
    with rclone_serving("s3", served, tmp_path, "--auth-key", "someone,something") as port:
        config = site.lab.folder / "rclone.conf"
        config.write_text(
            f"[far]\ntype = s3\nprovider = Rclone\nendpoint = http://127.0.0.1:{port}\n"
            "use_multipart_uploads = false\naccess_key_id = someone\nsecret_access_key = something\n"
        )
        remote = {"type": "rclone", "rclone_remote": "far", "rclone_config": str(config)}
        equip(site, {**remote, "rclone_remote_path": "bucket/of/CONFOCAL_01"})
        misspelt = {"name": "far", "transport": {**remote, "rclone_remote_path": "buckte/LISTER"}}
        site.equip("LISTER", destinations=[misspelt])
        run = site.make_run({"a b.tif": b"pixels", "sub/b+%2F.csv": b"1,2\n"})
        lost = site.make_run({"a": b"a"}, equipment="LISTER")
        async with running_engine(site) as engine:
            held = (await engine.enqueue(lost)).job.job_id
            await engine.until_waiting(held, job_pb2.WAIT_CONDITION_DESTINATION_UNREACHABLE)
            assert not (served / "buckte").exists()
            job = await engine.bring(run)
            there = served / "bucket" / "of" / run
            assert sha256sum_agrees(there) == 2
            assert (await Operator(site)("run", "verify", run)).status == 0
            await engine.until_state(job.job_id, job_pb2.JOB_STATE_CLEANED)
            amended = site.make_run({"sub/deep/b": b"b", "a": b"a"}, leaf="Run_2026-04-18T09-00")
            await engine.bring(amended)
            (site.local(amended) / "late").write_bytes(b"late")
            # Nothing is new in `sub`, which is not empty for that.
            await engine.bring(amended)
            assert sha256sum_agrees(served / "bucket" / "of" / amended) == 3
            assert not data_files(site.local(run))
            assert sha256sum_agrees(there) == 2


async def test_a_file_that_is_too_large_to_download_waits_for_an_operator(site: Site, sshd: Sshd) -> None:
    site.lab.settings["verify"] = {"max_stream_bytes": LARGE - 1}
    equip(site, rclone(site, sshd, "hashes = none\ndisable_hashcheck = true\n"))
    run = site.make_run({"small": b"x", "large": b"x" * LARGE})
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        job = await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_OPERATOR)
        assert job.state == job_pb2.JOB_STATE_AWAITING_VERIFY
        assert job.waiting_on[0].detail.startswith("verify_skipped_oversize: large")
    # What was downloaded once isn't downloaded again because the engine starts again.
    (site.at_nas(run) / "small").write_bytes(b"y")
    async with running_engine(site) as engine:
        await engine.bring(site.make_run({"a": b"a"}, leaf="Run_2026-04-18T09-00"))
        (site.at_nas(run) / "small").write_bytes(b"x")
        assert (await engine.job(job_id)).waiting_on[0].condition == job_pb2.WAIT_CONDITION_OPERATOR

        async def verify(max_stream_bytes: int) -> sync_service_pb2.VerifyReport:
            request = sync_service_pb2.VerifyRunRequest(run=run, max_stream_bytes=max_stream_bytes)
            (report,) = [u.report async for u in engine.sync.VerifyRun(request) if u.HasField("report")]
            return report

        too_low = await verify(LARGE - 1)
        assert not too_low.passed
        assert "verify_skipped_oversize" in too_low.note
        assert (await engine.job(job_id)).state == job_pb2.JOB_STATE_AWAITING_VERIFY
        said = await Operator(site)("run", "verify", run, "--max-stream-bytes", str(LARGE))
        assert said.status == 0, said
        await engine.until_sealed(job_id)
        assert sha256sum_agrees(site.at_nas(run)) == 2


@pytest.mark.parametrize("transport", [rsync_ssh, rclone])
async def test_local_data_is_deleted_once_the_far_copy_is_proven(site: Site, sshd: Sshd, transport: Any) -> None:
    site.lab.settings["nas_cleanup"] = {**ALLOWED, "retain_cache": False}
    equip(site, transport(site, sshd))
    run = site.make_run({"a b.tif": b"pixels", "sub/-x.csv": b"1,2\n"})
    async with running_engine(site) as engine:
        job = await engine.bring(run)
        (report,) = [
            u.report
            async for u in engine.sync.VerifyRun(sync_service_pb2.VerifyRunRequest(run=run))
            if u.HasField("report")
        ]
        assert report.passed
        await engine.until_state(job.job_id, job_pb2.JOB_STATE_CLEANED)
        assert not data_files(site.local(run))
        assert not (site.local(run) / ".exlab-wizard").exists()
        assert sha256sum_agrees(site.at_nas(run)) == 2
        # A far copy that rotted keeps what is here.
        kept = site.make_run({"c.tif": b"precious"}, leaf="Run_2026-04-18T09-00")
        await engine.bring(kept)
        (site.at_nas(kept) / "c.tif").write_bytes(b"preciouS")
        answer = await clean(engine, kept)
        assert not answer.cleaned
        assert data_files(site.local(kept)) == {"c.tif"}


@pytest.mark.parametrize("transport", [rsync_ssh, rclone])
async def test_a_killed_engine_leaves_no_child_and_no_credential_stood_in_a_command(
    site: Site, sshd: Sshd, transport: Any
) -> None:
    settings = transport(site, sshd)
    if "rclone_config" in settings:
        with open(settings["rclone_config"], "a") as config:
            config.write(f"pass = {OBSCURED}\n")
    equip(site, {**settings, "bandwidth": {"upload_mbps": 1}})
    run = site.make_run({"large": b"x" * 5_000_000})
    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_copying(job_id)
        children = _descendants(engine.service.process.pid)
        names = {Path(_command(child).split(b"\0")[0].decode()).name for child in children}
        assert names >= ({"rclone"} if transport is rclone else {"rsync", "ssh"})
        said = b"\0".join(_command(child) for child in children)
        for secret in (OBSCURED, SECRET, *sshd.access.key_path.read_text().splitlines()[1:-1]):
            assert secret.encode() not in said
        # Whatever engine starts next, another test's too, may remove it once this one is gone.
        left = f"labferry-tool-{engine.service.process.pid}-*"
        assert list(Path(tempfile.gettempdir()).glob(left)), "what it was told lies there, credentials among it"
        await engine.kill()
        async with asyncio.timeout(20):
            while any(_runs(child) for child in children):
                await asyncio.sleep(0.02)
    site.lab.settings["equipment"] = []
    async with running_engine(site):
        assert not list(Path(tempfile.gettempdir()).glob(left)), "the next start removes it, whatever it carries"


@pytest.mark.parametrize("transport", [rsync_ssh, rclone])
async def test_a_tool_that_freezes_is_ended_with_the_stall_or_with_the_engine(
    site: Site, sshd: Sshd, transport: Any
) -> None:
    site.lab.settings["transfer"] = {"stall_timeout": 8, "drain_timeout": 1}
    equip(site, {**transport(site, sshd), "bandwidth": {"upload_mbps": 8}})
    files: dict[str | bytes, bytes] = {f"{number}.tif": os.urandom(1_000_000) for number in range(4)}
    run, other = site.make_run(files), site.make_run(files, leaf="Run_2026-04-18T09-00")
    frozen: set[int] = set()

    async def freeze(engine: Engine, job_id: str) -> None:
        await engine.until_copying(job_id)
        for child in _descendants(engine.service.process.pid):
            # One that has just ended is no child any more.
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGSTOP)
                frozen.add(child)

    async with running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        await freeze(engine, job_id)
        stalled = await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_BACKOFF)
        assert "not a byte moved" in stalled.waiting_on[0].detail
        job_id = (await engine.enqueue(other)).job.job_id
        await freeze(engine, job_id)
        assert await engine.service.stop() == 0
    async with asyncio.timeout(20):
        while any(_runs(child) for child in frozen):
            await asyncio.sleep(0.02)
    async with running_engine(site) as engine:
        await engine.until_sealed(job_id)
        assert sha256sum_agrees(site.at_nas(other)) == len(files)


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _descendants(pid: int) -> set[int]:
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found |= {int(child)} | _descendants(int(child))
    return found


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
