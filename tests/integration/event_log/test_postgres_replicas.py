"""Two replicas on one log: each has read models of its own and follows what the other appends."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from libs.event_log import postgres_head
from libs.event_log.postgres_connection import Connection
from libs.event_log.postgres_head import PostgresHead
from libs.event_log.postgres_schema import schema_script
from libs.event_log.postgres_store import PostgresEventStore
from libs.event_log.projection import ProjectionRunner
from libs.event_log.store import AppendResult, LeaseLostError
from libs.event_log.subscription import CaughtUpStep, EventsStep, Subscription
from tests.integration.event_log.conformance import request
from tests.integration.event_log.counting import Notes, SumPerStream, notes, sums
from tests.integration.event_log.events import EVENT_TYPES, collect, counted, noted, to
from tests.integration.event_log.postgres_cluster import PostgresCluster


@pytest.fixture
async def replicas(postgres_url: str) -> AsyncIterator[tuple[PostgresEventStore, PostgresEventStore]]:
    # At once, so that both find an empty database.
    first, second = await asyncio.gather(
        *(PostgresEventStore.open(postgres_url, service="test", version="0.0.0") for _ in range(2))
    )
    yield first, second
    await first.close()
    await second.close()


Replicas = tuple[PostgresEventStore, PostgresEventStore]


async def test_there_is_one_log(replicas: Replicas) -> None:
    first, second = replicas
    assert (first.store_id, first.head) == (second.store_id, second.head) == (second.store_id, 1)
    (event,) = (await first.append([to("s", noted("a"))], request("r"))).events
    assert await second.wait_beyond(1) == 2
    assert await second.read_stream("s") == [event]
    again = await second.append([to("s", noted("a"))], request("r"))
    assert again.repeated and list(again.events) == [event]


async def test_a_log_that_another_replica_begins_meanwhile_is_not_damaged(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = PostgresHead.look
    stores: list[PostgresEventStore] = []

    async def look_and_be_late(head: PostgresHead, connection: Connection) -> None:
        await look(head, connection)
        monkeypatch.setattr(PostgresHead, "look", look)
        stores.append(await PostgresEventStore.open(postgres_url, service="test", version="0.0.0"))

    monkeypatch.setattr(PostgresHead, "look", look_and_be_late)
    stores.append(await PostgresEventStore.open(postgres_url, service="test", version="0.0.0"))
    try:
        assert [(store.head, store.damage) for store in stores] == [(1, None), (1, None)]
    finally:
        for store in stores:
            await store.close()


async def test_without_notifications_the_head_is_looked_at(
    postgres_url: str, postgres_cluster: PostgresCluster, postgres_database: str
) -> None:
    notify = "PERFORM pg_notify('labferry_test', head_position::text);"
    script = schema_script("test")
    assert notify in script
    await postgres_cluster.execute(postgres_database, script.replace(notify, "NULL;"))
    first, second = [await PostgresEventStore.open(postgres_url, service="test", version="0.0.0") for _ in range(2)]
    try:
        for number in range(2):
            waiting = asyncio.create_task(second.wait_beyond(first.head))
            await first.append([to("s", counted(number))])
            async with asyncio.timeout(30):
                assert await waiting == first.head
    finally:
        await first.close()
        await second.close()


async def test_a_notification_tells_of_a_new_head(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_head, "_LOOK_SECONDS", 3_600.0)
    first, second = [await PostgresEventStore.open(postgres_url, service="test", version="0.0.0") for _ in range(2)]
    try:
        for number in range(20):
            waiting = asyncio.create_task(second.wait_beyond(first.head))
            await first.append([to("s", counted(number))])
            async with asyncio.timeout(30):
                assert await waiting == first.head
    finally:
        await first.close()
        await second.close()


async def test_a_commit_is_waited_for_whatever_the_default(
    postgres_url: str, postgres_cluster: PostgresCluster, postgres_database: str
) -> None:
    await postgres_cluster.execute(
        postgres_database,
        f"ALTER DATABASE {postgres_database} SET synchronous_commit = off",
        schema_script("test"),
        "CREATE TABLE seen (setting text)",
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO public.seen VALUES (current_setting(''synchronous_commit'')); RETURN NEW; END'",
        "CREATE TRIGGER see BEFORE INSERT ON test.events FOR EACH ROW EXECUTE FUNCTION see()",
    )
    store = await PostgresEventStore.open(postgres_url, service="test", version="0.0.0")
    await store.close()
    connection = await asyncpg.connect(postgres_url)
    assert await connection.fetchval("SHOW synchronous_commit") == "off"
    assert [row["setting"] for row in await connection.fetch("SELECT setting FROM seen")] == ["on"]
    await connection.close()


async def test_a_read_is_never_behind_the_other_replica(replicas: Replicas) -> None:
    first, second = replicas
    for number in range(20):
        (event,) = (await first.append([to("s", counted(number))])).events
        assert (await collect(second.read(event.position - 1))) == [event]
        assert second.head >= event.position


async def test_a_lease_fences_across_replicas(replicas: Replicas) -> None:
    first, second = replicas
    lease = await first.leases.acquire("work", "one", 60)
    assert lease is not None
    await first.append([to("s", noted("a"))], fence=lease.fence)
    await first.leases.renew(lease, 0.05)
    async with asyncio.timeout(30):
        while (taken_over := await second.leases.acquire("work", "two", 60)) is None:
            await asyncio.sleep(0.01)
    with pytest.raises(LeaseLostError):
        await first.append([to("s", noted("b"))], fence=lease.fence)
    await second.append([to("s", noted("c"))], fence=taken_over.fence)
    assert len(await first.read_stream("s")) == 2


async def fenced_append_that_waits(
    store: PostgresEventStore, keeper: asyncpg.Connection[asyncpg.Record]
) -> asyncio.Task[AppendResult]:
    """An append that passed its fence, under a lease that ends soon, and waits for the keeper's lock."""
    # On a machine that is busy a short lease may end too early; then a longer one does.
    for seconds in (0.5, 4.0, 30.0):
        lease = await store.leases.acquire("work", "one", seconds)
        assert lease is not None
        appending = asyncio.create_task(store.append([to("s", noted("a"))], fence=lease.fence))
        while not appending.done():
            if await keeper.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"):
                return appending
            await asyncio.sleep(0.01)
        assert isinstance(appending.exception(), LeaseLostError)
    raise AssertionError("every lease ended too early")


async def test_a_takeover_waits_for_a_fenced_append(
    replicas: Replicas, postgres_cluster: PostgresCluster, postgres_database: str
) -> None:
    """The lease ends while the transaction that it fences is still open: nobody gets it before the commit."""
    first, second = replicas
    await postgres_cluster.execute(
        postgres_database,
        "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NEW; END'",
        "CREATE TRIGGER pause BEFORE INSERT ON test.events FOR EACH ROW EXECUTE FUNCTION pause()",
    )
    keeper = await asyncpg.connect(postgres_cluster.url(postgres_database))
    await keeper.execute("SELECT pg_advisory_lock(42)")
    appending = await fenced_append_that_waits(first, keeper)
    async with asyncio.timeout(60):
        while await second.leases.holder("work") is not None:
            await asyncio.sleep(0.01)
        taking_over = asyncio.create_task(second.leases.acquire("work", "two", 60))
        while not await keeper.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype <> 'advisory'"):
            await asyncio.sleep(0.01)
    assert not taking_over.done() and not appending.done()
    await keeper.execute("SELECT pg_advisory_unlock(42)")
    assert len((await appending).events) == 1
    assert await taking_over is not None
    await keeper.close()


def rows(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return [
            *connection.execute("SELECT * FROM notes ORDER BY 1"),
            *connection.execute("SELECT * FROM sums ORDER BY 1"),
        ]


async def test_read_models_follow_the_other_replica(
    replicas: Replicas, tmp_path: Path, postgres_cluster: PostgresCluster
) -> None:
    runners = [
        ProjectionRunner(store, EVENT_TYPES, tmp_path / f"read_models_{number}.sqlite3", [SumPerStream(), Notes()])
        for number, store in enumerate(replicas)
    ]
    try:
        for runner in runners:
            await runner.start()
        for number in range(30):
            store = replicas[number % 2]
            await store.append([to("n", noted(str(number))), to("c", counted(number))])
            assert (await runners[number % 2].query(notes))[-1] == str(number)
        for runner in runners:
            await runner.reached(61)
            assert await runner.query(sums) == {"c": sum(range(30))}
        await asyncio.to_thread(postgres_cluster.restart)
        await replicas[0].append([to("n", noted("after"))])
        for runner in runners:
            await runner.reached(62)
            assert runner.failure is None
            assert (await runner.query(notes))[-1] == "after"
            assert [report.differences for report in await runner.rebuild(dry_run=True)] == [0, 0]
    finally:
        for runner in runners:
            await runner.close()
    assert rows(tmp_path / "read_models_0.sqlite3") == rows(tmp_path / "read_models_1.sqlite3")


async def test_a_subscription_follows_the_other_replica(replicas: Replicas) -> None:
    first, second = replicas
    stop = asyncio.Event()
    seen: list[int] = []
    caught_up = 0

    async def follow() -> None:
        nonlocal caught_up
        async for step in Subscription(second, after=0).steps(stop):
            if isinstance(step, EventsStep):
                seen.extend(event.position for event in step.events)
            caught_up += isinstance(step, CaughtUpStep)
            if seen and seen[-1] == 201:
                stop.set()

    following = asyncio.create_task(follow())
    for number in range(100):
        await first.append([to("s", counted(number), counted(number))])
    async with asyncio.timeout(30):
        await following
    assert seen == list(range(1, 202)) and caught_up == 1
