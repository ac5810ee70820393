"""A connection that breaks at the worst moment: what was asked for is in the log once, or its caller is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from libs.event_log import postgres_committer, postgres_reader, postgres_store
from libs.event_log.event import RecordedEvent
from libs.event_log.log_verification import verify_log
from libs.event_log.postgres_store import PostgresEventStore
from libs.event_log.store import (
    AppendOutcomeUnknownError,
    AppendResult,
    LogDamagedError,
    LogLocationError,
    LogUnavailableError,
    RequestKey,
)
from tests.faults.event_log.database_proxy import DatabaseProxy, Fault, running_proxy
from tests.integration.event_log.events import collect, noted, to
from tests.integration.event_log.postgres_cluster import PostgresCluster


@pytest.fixture
async def proxy(postgres_cluster: PostgresCluster) -> AsyncIterator[DatabaseProxy]:
    async with running_proxy(postgres_cluster) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: DatabaseProxy, postgres_url: str) -> AsyncIterator[PostgresEventStore]:
    """A store that reaches its database through the proxy and has appended once."""
    opened = await PostgresEventStore.open(proxy.url(postgres_url), service="test", version="0.0.0")
    await opened.append([to("warm", noted("up"))])
    yield opened
    await opened.close()


def impatient(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.3) -> None:
    for module in (postgres_committer, postgres_reader, postgres_store):
        monkeypatch.setattr(module, "PATIENCE_SECONDS", seconds)


def key(name: str) -> RequestKey:
    return RequestKey("tester", "m", name, b"d")


async def check_once(store: PostgresEventStore, *streams: str) -> list[RecordedEvent]:
    """Each stream has its one event, and nothing else was appended."""
    for stream in streams:
        assert len(await store.read_stream(stream)) == 1
    assert (await verify_log(store)).first_break is None
    events = await collect(store.read())
    assert len(events) == 2 + len(streams)
    return events


@pytest.mark.parametrize("fault", [Fault.LOSE_ANSWER, Fault.LOSE_APPEND])
async def test_appends_on_their_way_are_recorded_once(
    store: PostgresEventStore, proxy: DatabaseProxy, fault: Fault
) -> None:
    proxy.fault = fault
    results = await asyncio.gather(
        store.append([to("a", noted("1"))]),
        store.append([to("b", noted("2"))], key("r")),
        store.append([], key("without events")),
    )
    assert proxy.fault is None
    assert [result.repeated for result in results[:2]] == [False, False]
    events = await check_once(store, "a", "b")
    assert [event for result in results for event in result.events] == events[2:]
    again = await store.append([to("b", noted("2"))], key("r"))
    assert again.repeated and list(again.events) == list(results[1].events)


async def test_a_transaction_that_comes_late_changes_nothing(store: PostgresEventStore, proxy: DatabaseProxy) -> None:
    proxy.fault = Fault.HOLD
    result = await store.append([to("a", noted("1"))])
    answer = await proxy.deliver()
    assert b"events_event_id_key" in answer
    assert (await check_once(store, "a"))[2:] == list(result.events)


async def test_an_outcome_that_stays_unknown_is_told(
    store: PostgresEventStore, proxy: DatabaseProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    proxy.fault = Fault.LOSE_ANSWER_AND_SHUT
    with pytest.raises(AppendOutcomeUnknownError, match="isn't known"):
        await store.append([to("a", noted("1"))], key("r"))
    await proxy.shut()
    with pytest.raises(LogUnavailableError) as refused:
        await store.append([to("b", noted("2"))])
    assert type(refused.value) is LogUnavailableError
    with pytest.raises(LogUnavailableError):
        await collect(store.read())
    await proxy.open()
    impatient(monkeypatch, 15)
    again = await store.append([to("a", noted("1"))], key("r"))
    assert again.repeated
    await check_once(store, "a")


async def test_backends_that_are_ended(
    store: PostgresEventStore, postgres_cluster: PostgresCluster, postgres_database: str, postgres_url: str
) -> None:
    other = await PostgresEventStore.open(postgres_url, service="test", version="0.0.0")
    try:
        lease = await store.leases.acquire("work", "one", 60)
        assert lease is not None
        for round_ in range(5):
            appends = [store.append([to(f"s-{round_}", noted(str(number)))]) for number in range(50)]
            waiting = asyncio.create_task(other.wait_beyond(2 + 50 * (round_ + 1) - 1))
            ended = postgres_cluster.execute(
                "postgres",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                f" AND datname = '{postgres_database}'",
            )
            await asyncio.gather(*appends, ended)
            assert len(await other.read_stream(f"s-{round_}")) == 50
            assert await waiting == other.head
            lease = await store.leases.renew(lease, 60)
        assert (await verify_log(store)).events_checked == 2 + 5 * 50
    finally:
        await other.close()


@pytest.mark.slow
async def test_a_server_that_crashes_and_comes_back(postgres_cluster: PostgresCluster, postgres_url: str) -> None:
    store = await PostgresEventStore.open(postgres_url, service="test", version="0.0.0")
    other = await PostgresEventStore.open(postgres_url, service="test", version="0.0.0")
    stop = asyncio.Event()

    async def write(writer: int) -> list[AppendResult]:
        done = []
        while not stop.is_set():
            done.append(await store.append([to(f"w-{writer}", noted(str(len(done))), expected=len(done) - 1)]
                        if done else [to(f"w-{writer}", noted("0"))]))  # fmt: skip
        return done

    async def follow() -> list[RecordedEvent]:
        seen: list[RecordedEvent] = []
        position = 0
        while not (stop.is_set() and position >= store.head):
            await other.wait_beyond(position) if not stop.is_set() else None
            async for page in other.read(position):
                seen += page
                position = page[-1].position
        return seen

    try:
        writers = [asyncio.create_task(write(writer)) for writer in range(4)]
        following = asyncio.create_task(follow())
        for _ in range(3):
            before = store.head
            await store.wait_beyond(before + 20)
            await asyncio.to_thread(postgres_cluster.restart)
            await store.wait_beyond(store.head)
        stop.set()
        written = await asyncio.gather(*writers)
        await store.append([to("end", noted("x"))])
        seen = await following
        acknowledged = {event.position: event for done in written for result in done for event in result.events}
        assert [event.position for event in seen[: len(acknowledged)]] == list(range(1, len(acknowledged) + 1))
        assert all(acknowledged.get(event.position, event) == event for event in seen)
        events = await collect(store.read())
        assert len(events) == 2 + len(acknowledged)
        assert (await verify_log(store)).first_break is None
    finally:
        await store.close()
        await other.close()


async def test_no_database_at_the_start(
    postgres_cluster: PostgresCluster, proxy: DatabaseProxy, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LogLocationError, match="nowhere"):
        await PostgresEventStore.open(postgres_cluster.url("nowhere"), service="test", version="0.0.0")
    with pytest.raises(LogLocationError, match="stranger"):
        await PostgresEventStore.open(postgres_cluster.url("postgres", "stranger"), service="test", version="0.0.0")
    await proxy.shut()
    impatient(monkeypatch)
    with pytest.raises(LogUnavailableError, match="doesn't answer"):
        await PostgresEventStore.open(proxy.url(postgres_url), service="test", version="0.0.0")
    impatient(monkeypatch, 15)
    opening = asyncio.create_task(PostgresEventStore.open(proxy.url(postgres_url), service="test", version="0.0.0"))
    await asyncio.sleep(0)
    await proxy.open()
    store = await opening
    assert store.head == 1
    await store.close()


async def test_a_database_that_was_set_back(
    store: PostgresEventStore, proxy: DatabaseProxy, postgres_cluster: PostgresCluster, postgres_database: str
) -> None:
    await store.append([to("s", noted("a"), noted("b"))])
    await proxy.shut()
    await postgres_cluster.execute(
        postgres_database,
        "ALTER TABLE test.events DISABLE TRIGGER refuse_change",
        "DELETE FROM test.events WHERE position = 4",
        "ALTER TABLE test.events ENABLE ALWAYS TRIGGER refuse_change",
    )
    await proxy.open()
    with pytest.raises(LogDamagedError) as damaged:
        await store.append([to("s", noted("c"))])
    assert damaged.value.position == 4
    assert store.damage is not None
    assert len(await collect(store.read())) == 3
