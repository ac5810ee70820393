"""The database itself refuses changes: to everybody by triggers, to the service's own role by its rights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator

import asyncpg
import pytest

from libs.event_log.log_verification import verify_log
from libs.event_log.postgres_store import PostgresEventStore
from libs.event_log.store import LogLocationError
from tests.e2e.documentation.pages import Page
from tests.integration.event_log.conformance import request
from tests.integration.event_log.events import collect, noted, to
from tests.integration.event_log.postgres_cluster import PostgresCluster

CHANGES = [
    "UPDATE sync_engine.events SET reason = 'better' WHERE position = 2",
    "DELETE FROM sync_engine.events WHERE position = 2",
    "TRUNCATE sync_engine.events",
    "INSERT INTO sync_engine.events SELECT * FROM sync_engine.events WHERE position = 2"
    " ON CONFLICT (position) DO UPDATE SET reason = 'better'",
    "UPDATE sync_engine.requests SET body_digest = ''",
    "DELETE FROM sync_engine.requests",
    "TRUNCATE sync_engine.requests",
    "UPDATE sync_engine.log SET store_id = 'other'",
    "DELETE FROM sync_engine.log",
    "TRUNCATE sync_engine.schema_version",
]
MORE_CHANGES = [
    "INSERT INTO sync_engine.events SELECT position + 1, stream, revision + 1, type, 'id', recorded_ns, actor, '', '',"
    " '', '', false, hash, payload FROM sync_engine.events WHERE position = 2",
    "INSERT INTO sync_engine.requests VALUES ('a', 'm', 'r', '', 1, 1)",
    "UPDATE sync_engine.leases SET holder = 'me'",
    "UPDATE sync_engine.highest SET position = 0",
    "DROP TRIGGER refuse_change ON sync_engine.events",
    "ALTER TABLE sync_engine.events DISABLE TRIGGER refuse_change",
    "DROP TABLE sync_engine.events",
    "CREATE TABLE sync_engine.mine (a int)",
    "CREATE OR REPLACE FUNCTION sync_engine.refuse_change() RETURNS trigger LANGUAGE plpgsql"
    " AS 'BEGIN RETURN NULL; END'",
    "SET session_replication_role = replica",
    "SET ROLE labferry_owner",
]


DATABASE = "labferry"


@pytest.fixture
async def prepared(postgres_cluster: PostgresCluster) -> AsyncIterator[str]:
    """A database as docs/cluster-admin.md prepares it, by the owner's script; the application role's address."""
    (documented,) = Page.read("docs/cluster-admin.md").blocks("sql")
    await postgres_cluster.execute("postgres", *documented.strip().split("\n"))
    command = [sys.executable, "-m", "libs.event_log.postgres_migration", "--schema", "sync_engine"]
    printed = subprocess.run(
        [*command, "--application-role", "labferry_app"], capture_output=True, text=True, check=True
    ).stdout
    owner = postgres_cluster.url(DATABASE, "labferry_owner")
    for _ in range(2):
        postgres_cluster.run("psql", "-1", "-q", "-v", "ON_ERROR_STOP=1", owner, text=printed)
    yield postgres_cluster.url(DATABASE, "labferry_app")
    await postgres_cluster.execute("postgres", f"DROP DATABASE {DATABASE} WITH (FORCE)")
    await postgres_cluster.execute("postgres", "DROP ROLE labferry_owner", "DROP ROLE labferry_app")


async def opened(url: str) -> PostgresEventStore:
    return await PostgresEventStore.open(url, service="sync_engine", version="0.0.0")


async def test_the_application_role_can_work(prepared: str) -> None:
    store, replica = await opened(prepared), await opened(prepared)
    try:
        await store.append([to("s", noted("a"), noted("b"))], request("r"))
        assert (await replica.append([to("s", noted("a"))], request("q"))).events[0].revision == 2
        lease = await store.leases.acquire("work", "one", 60)
        assert lease is not None and await replica.leases.acquire("work", "two", 60) is None
        await store.append([to("s", noted("c"))], fence=lease.fence)
        await store.leases.release(await store.leases.renew(lease, 60))
        assert (await verify_log(replica)).first_break is None
    finally:
        await store.close()
        await replica.close()


async def test_the_application_role_can_change_nothing(prepared: str) -> None:
    store = await opened(prepared)
    await store.append([to("s", noted("a"))], request("r"))
    before = await collect(store.read())
    connection = await asyncpg.connect(prepared)
    try:
        for statement in [*CHANGES, *MORE_CHANGES]:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        assert await collect(store.read()) == before
    finally:
        await connection.close()
        await store.close()


@pytest.mark.parametrize("session", ["RESET ALL", "SET session_replication_role = replica"])
async def test_triggers_refuse_even_a_superuser(postgres_url: str, session: str) -> None:
    store = await opened(postgres_url)
    await store.append([to("s", noted("a"))], request("r"))
    await store.close()
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(session)
        for statement in CHANGES:
            with pytest.raises(asyncpg.PostgresError, match="append-only"):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_role_that_may_not_make_its_schema_is_told_how(
    prepared: str, postgres_cluster: PostgresCluster
) -> None:
    with pytest.raises(LogLocationError, match="postgres_migration --schema secrets"):
        await PostgresEventStore.open(prepared, service="secrets", version="0.0.0")
    await postgres_cluster.execute(DATABASE, "REVOKE USAGE ON SCHEMA sync_engine FROM labferry_app")
    with pytest.raises(LogLocationError, match="postgres_migration --schema sync_engine"):
        await opened(prepared)


async def test_a_log_of_a_later_version_is_left_alone(
    postgres_url: str, postgres_cluster: PostgresCluster, postgres_database: str
) -> None:
    await (await opened(postgres_url)).close()
    await postgres_cluster.execute(postgres_database, "INSERT INTO sync_engine.schema_version VALUES (99)")
    with pytest.raises(LogLocationError, match="version 99"):
        await opened(postgres_url)


async def test_a_database_in_another_encoding(postgres_cluster: PostgresCluster) -> None:
    await postgres_cluster.execute("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(LogLocationError, match="UTF8"):
        await opened(postgres_cluster.url("latin"))
    await postgres_cluster.execute("postgres", "DROP DATABASE latin WITH (FORCE)")


@pytest.mark.parametrize("names", [["--schema", "Robert'); --"], ["--schema", "secrets", "--application-role", 'a"b']])
def test_the_script_is_for_plain_names(names: list[str]) -> None:
    command = [sys.executable, "-m", "libs.event_log.postgres_migration", *names]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and refused.stdout == ""
