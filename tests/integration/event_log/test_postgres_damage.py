"""What somebody with all rights changed in the database is found."""

from __future__ import annotations

import pytest

from libs.event_log.log_verification import verify_log
from libs.event_log.postgres_store import PostgresEventStore
from libs.event_log.store import LogDamagedError
from tests.integration.event_log.events import noted, to
from tests.integration.event_log.postgres_cluster import PostgresCluster


async def opened(url: str) -> PostgresEventStore:
    return await PostgresEventStore.open(url, service="test", version="0.0.0")


async def change(cluster: PostgresCluster, database: str, statement: str) -> None:
    await cluster.execute(
        database,
        "ALTER TABLE test.events DISABLE TRIGGER refuse_change",
        statement,
        "ALTER TABLE test.events ENABLE ALWAYS TRIGGER refuse_change",
    )


@pytest.mark.parametrize(
    ("statement", "position"),
    [
        ("UPDATE test.events SET reason = 'better' WHERE position = 3", 3),
        ("UPDATE test.events SET recorded_ns = recorded_ns + 1 WHERE position = 3", 3),
        ("UPDATE test.events SET payload = payload || '\\x00' WHERE position = 3", 3),
        ("DELETE FROM test.events WHERE position = 3", 3),
        ("UPDATE test.events SET hash = sha256(hash) WHERE position = 3", 3),
    ],
)
async def test_a_change_in_the_middle(
    postgres_cluster: PostgresCluster, postgres_database: str, postgres_url: str, statement: str, position: int
) -> None:
    store = await opened(postgres_url)
    try:
        await store.append([to("s", *(noted(str(number)) for number in range(10)))])
        await change(postgres_cluster, postgres_database, statement)
        found = (await verify_log(store)).first_break
        assert found is not None and found.position == position
    finally:
        await store.close()


async def test_a_tail_that_was_cut_off(
    postgres_cluster: PostgresCluster, postgres_database: str, postgres_url: str
) -> None:
    store = await opened(postgres_url)
    await store.append([to("s", noted("a"), noted("b"))])
    await store.close()
    await change(postgres_cluster, postgres_database, "DELETE FROM test.events WHERE position = 3")
    store = await opened(postgres_url)
    try:
        assert store.damage is not None and store.damage.position == 3
        found = (await verify_log(store)).first_break
        assert found is not None and "are gone" in found.reason
        with pytest.raises(LogDamagedError):
            await store.append([to("s", noted("c"))])
    finally:
        await store.close()
    await change(postgres_cluster, postgres_database, "DELETE FROM test.events")
    with pytest.raises(LogDamagedError, match="all of them are gone"):
        await opened(postgres_url)


async def test_a_changed_head_refuses_appends(
    postgres_cluster: PostgresCluster, postgres_database: str, postgres_url: str
) -> None:
    store = await opened(postgres_url)
    await store.append([to("s", noted("a"), noted("b"))])
    await store.close()
    await change(postgres_cluster, postgres_database, "UPDATE test.events SET actor = 'else' WHERE position = 3")
    store = await opened(postgres_url)
    try:
        assert store.damage is not None and store.damage.position == 3
        with pytest.raises(LogDamagedError):
            await store.append([to("s", noted("c"))])
        assert len(await store.read_stream("s")) == 2
    finally:
        await store.close()
