"""The three services with their logs in PostgreSQL, under a role that can change nothing there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from labferry.events.v1 import event_log_service_pb2 as log_pb
from labferry.events.v1 import event_pb2
from labferry.secrets.v1 import secrets_service_pb2 as secrets_pb
from labferry.sync.v1 import job_pb2
from libs.event_log.postgres_schema import schema_script
from tests.integration.event_log.postgres_cluster import PostgresCluster
from tests.integration.secrets.running_service import RunningService, ServiceEndedError, running, start
from tests.integration.sync_engine.running_engine import Site, running_engine, same_tree

SERVICES = ("secrets", "lims_gateway", "sync_engine")


@pytest.fixture
async def site(site: Site, postgres_cluster: PostgresCluster, postgres_database: str) -> AsyncIterator[Site]:
    """A site whose services keep their logs in a database that its owner prepared."""
    role = f"{postgres_database}_app"
    scripts = [schema_script(service, role) for service in SERVICES]
    await postgres_cluster.execute(postgres_database, f"CREATE ROLE {role} LOGIN", *scripts)
    site.lab.settings["event_log"] = {"url": postgres_cluster.url(postgres_database, role)}
    site.lab.settings["secrets"] = {
        "backend": "encrypted_file",
        "passphrase_file": str(site.lab.passphrase_file),
    }
    site.lab.write_passphrase()
    yield site
    await postgres_cluster.execute(postgres_database, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def intact(service: RunningService) -> log_pb.VerifyLogResponse:
    stub = await service.event_log()
    verdict: log_pb.VerifyLogResponse = await stub.VerifyLog(log_pb.VerifyLogRequest())
    assert verdict.intact, verdict
    return verdict


async def set_secret(service: RunningService, value: str) -> None:
    stub = await service.secrets()
    await stub.SetSecret(secrets_pb.SetSecretRequest(username="lims", value=value))


@pytest.mark.slow
async def test_the_main_job(site: Site, postgres_cluster: PostgresCluster) -> None:
    run = site.make_run()
    async with (
        running(site.lab, "secrets") as secrets,
        running(site.lab, "lims_gateway") as gateway,
        running_engine(site) as engine,
    ):
        job = await engine.bring(run)
        await set_secret(secrets, "hunter2")
        services = (secrets, gateway, engine.service)
        before = [await service.events() for service in services]
        for service in services:
            await intact(service)
        # The database crashes and comes back; nobody restarts the services.
        await asyncio.to_thread(postgres_cluster.restart)
        another = site.make_run(leaf="Run_2026-04-17T15-00")
        await engine.bring(another)
        await set_secret(secrets, "hunter3")
    same_tree(site.local(run), site.at_nas(run))
    same_tree(site.local(another), site.at_nas(another))
    assert not list(site.lab.state_dir.rglob("events.sqlite3"))

    # What the read models hold comes from the log alone.
    os.unlink(site.lab.state_dir / "sync_engine" / "read_models.sqlite3")
    async with (
        running(site.lab, "secrets") as secrets,
        running(site.lab, "lims_gateway") as gateway,
        running_engine(site) as engine,
    ):
        again = await engine.job(job.job_id)
        assert (again.state, again.sealed) == (job_pb2.JOB_STATE_VERIFIED, True)
        after = [await service.events() for service in (secrets, gateway, engine.service)]
        for service in (secrets, gateway, engine.service):
            await intact(service)
    assert [_ids(new)[: len(old)] for old, new in zip(before, after, strict=True)] == [_ids(old) for old in before]
    assert b"hunter" not in b"".join(event.payload.value for log in after for event in log)


def _ids(events: list[event_pb2.Event]) -> list[str]:
    return [event.event_id for event in events]


async def test_a_database_that_refuses_the_service(site: Site, postgres_cluster: PostgresCluster) -> None:
    site.lab.settings["event_log"] = {"url": postgres_cluster.url("nowhere")}
    with pytest.raises(ServiceEndedError, match="nowhere") as ended:
        await start(site.lab, "sync_engine")
    assert ended.value.status == 75
    assert "Traceback" not in ended.value.log
