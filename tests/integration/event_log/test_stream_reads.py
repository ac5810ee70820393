"""Single streams read at once by many: each gets its own, whoever goes away and whatever is damaged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import LogClosedError
from tests.integration.event_log.events import counted, to

STREAMS = 50


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteEventStore]:
    opened = await SqliteEventStore.open(tmp_path / "events.sqlite3", service="test", version="0.0.0")
    for number in range(STREAMS):
        await opened.append([to(f"s-{number}", *(counted(n) for n in range(number)))])
    yield opened
    await opened.close()


async def test_each_reader_gets_its_own_stream(store: SqliteEventStore) -> None:
    reads = [store.read_stream(f"s-{number}") for number in range(STREAMS) for _ in range(3)]
    lengths = [len(events) for events in await asyncio.gather(*reads)]
    assert lengths == [number for number in range(STREAMS) for _ in range(3)]


async def test_one_that_goes_away_holds_up_nobody(store: SqliteEventStore) -> None:
    reads = [asyncio.create_task(store.read_stream(f"s-{number}")) for number in range(STREAMS)]
    await asyncio.sleep(0)
    for gone in reads[::2]:
        gone.cancel()
    outcomes = await asyncio.gather(*reads, return_exceptions=True)
    assert [len(outcome) for outcome in outcomes[1::2] if not isinstance(outcome, BaseException)] == list(
        range(1, STREAMS, 2)
    )
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])


async def test_closing_answers_or_refuses_everybody(store: SqliteEventStore) -> None:
    reads = [asyncio.create_task(store.read_stream("s-7")) for _ in range(20)]
    await asyncio.sleep(0)
    late = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    reads.append(asyncio.create_task(store.read_stream("s-7")))
    async with asyncio.timeout(20):
        outcomes = await asyncio.gather(*reads, return_exceptions=True)
        await late
    assert all(isinstance(o, LogClosedError) or (not isinstance(o, BaseException) and len(o) == 7) for o in outcomes)
    with pytest.raises(LogClosedError):
        await store.read_stream("s-7")
