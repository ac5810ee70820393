"""An rclone configuration that IT encrypted: its password is lent to each rclone under a lease, and to nobody else."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from labferry.events.v1 import secret_events_pb2 as facts
from labferry.secrets.v1 import secrets_service_pb2 as pb
from labferry.sync.v1 import job_pb2
from services.sync_engine.transfer.tool_process import find_tool
from tests.e2e.terminal import Operator
from tests.integration.secrets.running_service import PASSPHRASE, RunningService, running
from tests.integration.sync_engine.running_engine import (
    EQUIPMENT,
    PATIENCE,
    Site,
    new_site,
    running_engine,
    same_tree,
    start_engine,
)

USERNAME = f"nas:{EQUIPMENT}"
PASSWORD = "what IT encrypted it with"


def encrypt(config: Path, password: str) -> None:
    """As IT does it, with rclone itself."""
    command = [find_tool("rclone"), "--config", str(config), "config", "encryption", "set"]
    subprocess.run(command, input=f"{password}\n{password}\n".encode(), check=True, capture_output=True, timeout=60)
    assert b"RCLONE_ENCRYPT_V0" in config.read_bytes()


def equip_encrypted(site: Site, password: str, **transport: Any) -> None:
    """An equipment whose runs go to a folder by rclone, with an encrypted configuration."""
    config = site.lab.folder / "rclone.conf"
    config.write_text("[nas]\ntype = local\n")
    encrypt(config, password)
    site.nas().mkdir(parents=True, exist_ok=True)
    rclone = {"type": "rclone", "rclone_remote": "nas", "rclone_remote_path": str(site.nas())}
    site.equip(
        destinations=[{"name": "far", "transport": {**rclone, "rclone_config": str(config), **transport}}],
    )


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with new_site() as site:
        site.lab.write_passphrase()
        site.lab.settings["secrets"].update(passphrase_file=str(site.lab.passphrase_file), lease_seconds=2)
        yield site


def shown_by_processes() -> list[bytes]:
    """The command line and the environment of every process that hasn't ended meanwhile."""
    found = []
    for part in ("cmdline", "environ"):
        for place in Path("/proc").glob(f"[0-9]*/{part}"):
            with suppress(OSError):
                found.append(place.read_bytes())
    return found


async def keep(service: RunningService, password: str) -> None:
    await (await service.secrets()).SetSecret(pb.SetSecretRequest(username=USERNAME, value=password))


async def live_leases(service: RunningService) -> list[pb.Lease]:
    return list((await (await service.secrets()).ListLeases(pb.ListLeasesRequest())).leases)


async def until_no_lease_lives(service: RunningService) -> None:
    async with asyncio.timeout(PATIENCE):
        while await live_leases(service):
            await asyncio.sleep(0.05)


async def purposes(service: RunningService) -> list[str]:
    found = []
    for event in await service.events():
        fact = facts.SecretLeaseGranted()
        if event.payload.Unpack(fact):
            assert event.actor == "service:sync_engine"
            found.append(fact.purpose)
    return found


async def test_a_job_waits_for_the_secrets_and_goes_on_when_they_are_opened(site: Site) -> None:
    equip_encrypted(site, PASSWORD)
    run = site.make_run()
    async with running(site.lab, "secrets") as service, running_engine(site) as engine:
        await keep(service, PASSWORD)
        operator = await service.secrets()
        await operator.Seal(pb.SealRequest())
        job_id = (await engine.enqueue(run)).job.job_id
        job = await engine.until_waiting(job_id, job_pb2.WAIT_CONDITION_SECRETS_UNAVAILABLE)
        assert (job.state, job.attempt, job.waiting_on[0].who_can_clear) == (job_pb2.JOB_STATE_QUEUED, 0, "operator")
        assert "secrets service" in job.waiting_on[0].detail
        assert USERNAME in job.waiting_on[0].detail
        assert "labferry secret unseal" in (await Operator(site)("why", run)).out
        await operator.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))
        job = await engine.until_sealed(job_id)
        assert job.attempt == 1
        same_tree(site.local(run), site.at_nas(run))
        await until_no_lease_lives(service)
        granted = await purposes(service)
        assert {f"job {job_id}", f"check of {EQUIPMENT}/far"} == set(granted)
        events = await service.events()
        assert len([e for e in events if e.type == "secrets.lease.revoked.v1"]) == len(granted)
        assert not [e for e in events if e.type == "secrets.lease.expired.v1"]


async def test_a_wrong_password_and_none_fail_at_once_and_say_what_is_wrong(site: Site) -> None:
    equip_encrypted(site, PASSWORD)
    run = site.make_run()
    async with running(site.lab, "secrets") as service, running_engine(site) as engine:
        job_id = (await engine.enqueue(run)).job.job_id
        job = await engine.until_failed(job_id)
        assert job.failure.kind == job_pb2.FAILURE_KIND_CONFIGURATION
        assert f"labferry secret set {USERNAME}" in job.failure.message
        await keep(service, "not what IT encrypted it with")
        await engine.steer("RetryJob", job_id)
        job = await engine.until(job_id, lambda u: "decrypt" in u.job.failure.message)
        assert (job.state, job.failure.kind) == (job_pb2.JOB_STATE_FAILED, job_pb2.FAILURE_KIND_AUTHENTICATION)
        await until_no_lease_lives(service)
        await keep(service, PASSWORD)
        await engine.steer("RetryJob", job_id)
        await engine.until(job_id, lambda u: u.job.sealed)


async def test_a_lease_that_is_revoked_ends_the_transfer_and_one_of_a_killed_engine_ends_by_itself(site: Site) -> None:
    equip_encrypted(site, PASSWORD, bandwidth={"upload_mbps": 1})
    run = site.make_run({"large": b"x" * 4_000_000})
    async with running(site.lab, "secrets") as service:
        await keep(service, PASSWORD)
        operator = await service.secrets()
        engine = await start_engine(site)
        job_id = (await engine.enqueue(run)).job.job_id
        await engine.until_copying(job_id)
        (lease,) = [lease for lease in await live_leases(service) if lease.purpose == f"job {job_id}"]
        shown = shown_by_processes()
        assert any(b"rcd" in one.split(b"\0") for one in shown)
        assert not [one for one in shown if PASSWORD.encode() in one]
        # Longer than its term: it is renewed as long as the work goes on.
        async with asyncio.timeout(PATIENCE):
            while (await live_leases(service))[0].expire_time.seconds < lease.expire_time.seconds + 3:
                await asyncio.sleep(0.1)
        await operator.RevokeLease(pb.RevokeLeaseRequest(lease_id=lease.lease_id, reason="the storage was stolen"))
        job = await engine.until_failed(job_id)
        assert job.failure.kind == job_pb2.FAILURE_KIND_AUTHENTICATION
        assert "revoked" in job.failure.message
        await engine.steer("RetryJob", job_id)
        await engine.until_copying(job_id)
        (lease,) = await live_leases(service)
        await engine.kill()
        await until_no_lease_lives(service)
        # It reads nothing any more from its end on; that is recorded a moment later.
        async with asyncio.timeout(PATIENCE):
            while not (ended := [e for e in await service.events() if e.type == "secrets.lease.expired.v1"]):
                await asyncio.sleep(0.05)
        assert [event.actor for event in ended] == ["service:secrets"]
        fact = facts.SecretLeaseExpired()
        assert ended[0].payload.Unpack(fact)
        assert fact.lease_id == lease.lease_id
