"""Writers, and readers that tail a log by position. As a program: some writers in a process of their own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from libs.event_log.postgres_store import PostgresEventStore
from libs.event_log.store import EventStore
from tests.integration.event_log.events import counted, to

Seen = list[tuple[int, str]]


async def write(store: EventStore, writer: str, events: int, in_flight: int = 10) -> None:
    """So many events to one writer's streams, several appends in flight."""

    async def one_stream(number: int) -> None:
        for revision in range(events // in_flight):
            await store.append([to(f"{writer}-{number}", counted(revision))])

    await asyncio.gather(*(one_stream(number) for number in range(in_flight)))


async def tail(store: EventStore, last: int, seen: Seen) -> Seen:
    """Adds what a reader sees that goes on from the last position it saw, until it has seen the position `last`."""
    position = 1
    while position < last:
        await store.wait_beyond(position)
        async for page in store.read(position, upto=store.head):
            seen += [(event.position, event.event_id) for event in page]
            position = page[-1].position
    return seen


def missed(seen: Seen, recorded: Seen) -> Seen:
    """What is in the log and a reader never saw. AssertionError for anything seen twice or out of order."""
    assert seen == sorted(set(seen))
    return sorted(set(recorded) - set(seen))


async def main(url: str, events: int, writers: Sequence[str]) -> None:
    """Each writer with a store of its own."""
    stores = [await PostgresEventStore.open(url, service="test", version="0.0.0") for _ in writers]
    await asyncio.gather(*(write(store, writer, events) for store, writer in zip(stores, writers, strict=True)))
    for store in stores:
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
