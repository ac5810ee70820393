"""Concurrent writers and readers that tail by position: no event missed, none twice, one order for all."""

from __future__ import annotations

import asyncio
from pathlib import Path

from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import EventStore
from tests.integration.event_log.events import counted, to

WRITERS = 8
APPENDS = 500
TOTAL = WRITERS * APPENDS


async def write(store: EventStore, writer: int) -> list[str]:
    ids = []
    for number in range(APPENDS):
        result = await store.append(
            [to(f"w-{writer}", counted(number), expected=number - 1)] if number else [to(f"w-{writer}", counted(0))]
        )
        ids += [event.event_id for event in result.events]
    return ids


async def tail(store: EventStore) -> list[tuple[int, str]]:
    seen: list[tuple[int, str]] = []
    position = 1
    while len(seen) < TOTAL:
        await store.wait_beyond(position)
        async for page in store.read(position):
            seen += [(event.position, event.event_id) for event in page]
            position = page[-1].position
    return seen


async def test_nothing_is_missed_and_nothing_comes_twice(tmp_path: Path) -> None:
    store = await SqliteEventStore.open(tmp_path / "events.sqlite3", service="test", version="0.0.0")
    try:
        readers = [asyncio.create_task(tail(store)) for _ in range(4)]
        written = await asyncio.gather(*(write(store, writer) for writer in range(WRITERS)))
        seen = await asyncio.gather(*readers)
    finally:
        await store.close()
    first = seen[0]
    assert [position for position, _ in first] == list(range(2, TOTAL + 2))
    assert {event_id for _, event_id in first} == {event_id for ids in written for event_id in ids}
    assert all(other == first for other in seen)
