"""The victim of test_sigkill: appends from several tasks and acknowledges on standard output what was recorded."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from libs.event_log.projection import ProjectionRunner
from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import RequestKey
from tests.integration.event_log.counting import Notes, SumPerStream
from tests.integration.event_log.events import EVENT_TYPES, counted, noted, to

WRITERS = 8


async def write(store: SqliteEventStore, session: str, writer: int) -> None:
    number = 0
    while True:
        name = f"{session}-{writer}-{number}"
        result = await store.append(
            [to(f"w-{writer}", counted(number)), to(f"n-{writer}", noted(name))],
            RequestKey("tester", "write", name, name.encode()),
        )
        # One write a line: a pipe keeps a short one whole, whenever the process dies.
        os.write(1, f"{name} {result.events[0].position} {result.events[0].event_id}\n".encode())
        number += 1


async def main(folder: Path, session: str) -> None:
    store = await SqliteEventStore.open(folder / "events.sqlite3", service="test", version="0.0.0")
    runner = ProjectionRunner(store, EVENT_TYPES, folder / "read_models.sqlite3", [SumPerStream(), Notes()])
    await runner.start()
    os.write(1, b"ready\n")
    async with asyncio.TaskGroup() as writers:
        for writer in range(WRITERS):
            writers.create_task(write(store, session, writer))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
