"""The victims of test_sigkill. One process imports everything once and forks a victim for each line on standard input.

A line is a JSON object: `folder`, `session`, and where the victim dies: `point` and `count` for a point of an append
that is passed the count-th time, `bytes` for a write that is cut off so many bytes behind the present end of a file.
Neither: somebody else kills it. The victim tells on standard output what was acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from libs.event_log import sqlite_schema
from libs.event_log.projection import ProjectionRunner
from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import RequestKey
from tests.integration.event_log.counting import Notes, SumPerStream
from tests.integration.event_log.events import EVENT_TYPES, counted, noted, to

POINTS = (
    *("before BEGIN", "after BEGIN"),
    *("before INSERT INTO events", "after INSERT INTO events"),
    *("before INSERT INTO requests", "after INSERT INTO requests"),
    *("before COMMIT", "after COMMIT"),
    *("before the answer", "after the answer"),
)
WRITERS = 4


class Death:
    """Kills this very process at one point, as if somebody else did."""

    def __init__(self, point: str, count: int) -> None:
        self._point = point
        self._left = count
        self.armed = False

    def at(self, point: str) -> None:
        if self.armed and point == self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def watched_connections(death: Death) -> type[sqlite3.Connection]:
    class Watched(sqlite3.Connection):
        """The log's writing connection, whose every step is a point to die at."""

        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            point = next((p.removeprefix("before ") for p in POINTS if p == f"before {sql[: len(p) - 7]}"), "")
            death.at(f"before {point}")
            cursor = super().execute(sql, *arguments)
            death.at(f"after {point}")
            return cursor

        def __exit__(self, *arguments: Any) -> Any:
            death.at("before COMMIT")
            result = super().__exit__(*arguments)
            death.at("after COMMIT")
            return result

    return Watched


async def write(store: SqliteEventStore, session: str, writer: int, at: Callable[[str], None]) -> None:
    number = 0
    while True:
        name = f"{session}-{writer}-{number}"
        result = await store.append(
            [to(f"w-{writer}", counted(number)), to(f"n-{writer}", noted(name))],
            RequestKey("tester", "write", name, name.encode()),
        )
        at("before the answer")
        # One write a line: a pipe keeps a short one whole, whenever the process dies.
        os.write(1, f"answered {name} {result.events[0].position} {result.events[0].event_id}\n".encode())
        at("after the answer")
        number += 1


async def victim(folder: Path, session: str, death: Death, cut_off_bytes: int | None) -> None:
    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return sqlite3.connect(*arguments, factory=watched_connections(death), **options)

    sqlite_schema.sqlite3 = SimpleNamespace(**{**vars(sqlite3), "connect": connect})  # type: ignore[assignment]
    store = await SqliteEventStore.open(folder / "events.sqlite3", service="test", version="0.0.0")
    runner = ProjectionRunner(store, EVENT_TYPES, folder / "read_models.sqlite3", [SumPerStream(), Notes()])
    await runner.start()
    death.armed = True
    if cut_off_bytes is not None:
        # The kernel writes up to the limit and then kills with SIGXFSZ: a write torn at this very byte.
        end = max(path.stat().st_size for path in folder.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (end + cut_off_bytes, end + cut_off_bytes))
    os.write(1, b"ready\n")
    async with asyncio.TaskGroup() as writers:
        for writer in range(WRITERS):
            writers.create_task(write(store, session, writer, death.at))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            os.write(1, f"victim {os.getpid()}\n".encode())
            death = Death(order.get("point", ""), order.get("count", 0))
            asyncio.run(victim(Path(order["folder"]), order["session"], death, order.get("bytes")))
            os._exit(1)
        _, status = os.waitpid(child, 0)
        ending = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status}"
        os.write(1, f"died {ending}\n".encode())


if __name__ == "__main__":
    main()
