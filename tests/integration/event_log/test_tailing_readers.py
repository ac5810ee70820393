"""Concurrent writers and readers that tail by position: no event missed, none twice, one order for all."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from libs.event_log.log_verification import verify_log
from libs.event_log.postgres_append_function import NEXT_POSITION, ORDERING_LOCK
from libs.event_log.postgres_schema import schema_script
from libs.event_log.postgres_store import PostgresEventStore
from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import EventStore
from tests.integration.event_log.events import collect, counted, to
from tests.integration.event_log.tailing import Seen, missed, tail, write

WRITERS = 8
EVENTS = 20_000
EACH = EVENTS // WRITERS


async def recorded(store: EventStore) -> Seen:
    return [(event.position, event.event_id) for event in await collect(store.read(1))]


async def check_readers(store: EventStore, seen: list[Seen]) -> None:
    everything = await recorded(store)
    assert [position for position, _ in everything] == list(range(2, EVENTS + 2))
    for one in seen:
        assert missed(one, everything) == []
        assert one == everything
    assert (await verify_log(store)).first_break is None


@pytest.mark.slow
async def test_sqlite_loses_nothing(tmp_path: Path) -> None:
    store = await SqliteEventStore.open(tmp_path / "events.sqlite3", service="test", version="0.0.0")
    try:
        readers = [asyncio.create_task(tail(store, EVENTS + 1, [])) for _ in range(4)]
        await asyncio.gather(*(write(store, f"w-{writer}", EACH) for writer in range(WRITERS)))
        await check_readers(store, await asyncio.gather(*readers))
    finally:
        await store.close()


@pytest.mark.slow
async def test_postgres_loses_nothing(postgres_url: str) -> None:
    """Two writers here and three in each of two processes, all with a connection of their own; three readers."""
    stores = [await PostgresEventStore.open(postgres_url, service="test", version="0.0.0") for _ in range(5)]
    try:
        readers = [asyncio.create_task(tail(store, EVENTS + 1, [])) for store in stores[:3]]
        command = [sys.executable, "-m", "tests.integration.event_log.tailing", postgres_url, str(EACH)]
        elsewhere = [
            await asyncio.create_subprocess_exec(*command, *(f"{process}-{writer}" for writer in range(3)))
            for process in ("p", "q")
        ]
        here = [write(store, f"here-{number}", EACH) for number, store in enumerate(stores[3:])]
        await asyncio.gather(*here)
        assert [await process.wait() for process in elsewhere] == [0, 0]
        await check_readers(stores[0], await asyncio.gather(*readers))
    finally:
        for store in stores:
            await store.close()


WITH_LOCK = schema_script("test")
WITHOUT_LOCK = (
    schema_script("test")
    .replace(ORDERING_LOCK.replace("@schema@", "test"), "")
    .replace(NEXT_POSITION, "head_position := nextval('test.positions');")
)
# A transaction that appends to the stream "slow" stays open after it got its position, as long as the test wants.
PAUSE = """
CREATE FUNCTION test.pause() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN IF NEW.stream = ''slow'' THEN PERFORM pg_advisory_xact_lock_shared(42); END IF; RETURN NEW; END';
CREATE TRIGGER pause BEFORE INSERT ON test.events FOR EACH ROW EXECUTE FUNCTION test.pause();
CREATE SEQUENCE test.positions;
"""


@pytest.fixture
async def gate(postgres_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection that holds the transactions of the stream "slow" open."""
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("SELECT pg_advisory_lock(42)")
    yield connection
    await connection.close()


async def until_waiting(gate: asyncpg.Connection[asyncpg.Record], transactions: int) -> None:
    """Until so many transactions wait for an advisory lock."""
    count = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with asyncio.timeout(30):
        while await gate.fetchval(count) < transactions:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("script", "is_lost"), [(WITH_LOCK, False), (WITHOUT_LOCK, True)], ids=["lock", "no lock"])
async def test_the_ordering_lock_is_what_loses_nothing(
    postgres_url: str, gate: asyncpg.Connection[asyncpg.Record], script: str, is_lost: bool
) -> None:
    """A slow transaction gets its position before a quick one, and commits after it."""
    assert ("nextval('test.positions')" in script) == is_lost
    await gate.execute(script)
    await gate.execute(PAUSE)
    slow, quick, reader = [
        await PostgresEventStore.open(postgres_url, service="test", version="0.0.0") for _ in range(3)
    ]
    try:
        seen: Seen = []
        reading = asyncio.create_task(tail(reader, 4, seen))
        slowly = asyncio.create_task(slow.append([to("slow", counted(1))]))
        await until_waiting(gate, 1)
        quickly = asyncio.create_task(quick.append([to("quick", counted(1))]))
        if is_lost:
            assert (await quickly).events[0].position == 3
            async with asyncio.timeout(30):
                while not seen:
                    await asyncio.sleep(0.01)
        else:
            await until_waiting(gate, 2)
        await gate.execute("SELECT pg_advisory_unlock(42)")
        (late,) = (await slowly).events
        await quickly
        await quick.append([to("quick", counted(2))])
        await reading
        everything = await recorded(reader)
        assert [position for position, _ in everything] == [2, 3, 4]
        assert missed(seen, everything) == ([(late.position, late.event_id)] if is_lost else [])
    finally:
        for store in (slow, quick, reader):
            await store.close()
