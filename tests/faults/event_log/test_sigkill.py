"""The process dies at random instants; whatever it acknowledged is there afterwards, whole, once."""

from __future__ import annotations

import random
import select
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.wrappers_pb2 import StringValue

from libs.event_log.event import RecordedEvent
from libs.event_log.log_verification import verify_log
from libs.event_log.projection import ProjectionRunner
from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import RequestKey
from tests.integration.event_log.counting import Notes, SumPerStream
from tests.integration.event_log.events import EVENT_TYPES, collect

KILLS = 15


@dataclass(frozen=True)
class Acknowledged:
    """What the victim was told."""

    request: str
    position: int
    event_id: str


def run_and_kill(folder: Path, session: int, instant: float) -> list[Acknowledged]:
    """Kills a writing process `instant` seconds after it became ready; what it acknowledged until then."""
    command = [sys.executable, "-m", "tests.faults.event_log.appending", str(folder), str(session)]
    victim = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + instant
    output = b""
    while (left := deadline - time.monotonic()) > 0:
        # Read meanwhile, so that a full pipe never holds the victim back.
        if select.select([victim.stdout], [], [], left)[0]:
            output += victim.stdout.read1(1 << 20)
    victim.kill()
    output += victim.stdout.read()
    victim.stdout.close()
    victim.wait()
    whole_lines = output.decode().split("\n")[:-1]
    return [Acknowledged(name, int(position), event_id) for name, position, event_id in map(str.split, whole_lines)]


def rows(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(folder / "read_models.sqlite3")) as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in ("sums", "notes")
        }


def check_whole(events: list[RecordedEvent]) -> None:
    """Each append had two events; never one without the other."""
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    for first, second in zip(events[1::2], events[2::2], strict=True):
        assert (first.type, second.type) == ("test.counted.v1", "test.noted.v1")
        assert first.stream[1:] == second.stream[1:]
        assert first.recorded_ns == second.recorded_ns


async def test_killed_at_random_instants(tmp_path: Path) -> None:
    chance = random.Random()
    acknowledged: list[Acknowledged] = []
    for session in range(KILLS):
        acknowledged += run_and_kill(tmp_path, session, chance.uniform(0.0, 0.25))
        store = await SqliteEventStore.open(tmp_path / "events.sqlite3", service="test", version="0.0.0")
        assert store.damage is None
        assert (await verify_log(store)).first_break is None
        events = await collect(store.read())
        check_whole(events)
        for told in acknowledged:
            assert events[told.position - 1].event_id == told.event_id
        texts = [StringValue.FromString(event.payload).value for event in events if event.type == "test.noted.v1"]
        assert len(texts) == len(set(texts)) >= len(acknowledged)
        for text in texts[-20:]:
            found = await store.find_request(RequestKey("tester", "write", text, text.encode()))
            assert found is not None and found.repeated
        await store.close()
    assert acknowledged

    store = await SqliteEventStore.open(tmp_path / "events.sqlite3", service="test", version="0.0.0")
    runner = ProjectionRunner(store, EVENT_TYPES, tmp_path / "read_models.sqlite3", [SumPerStream(), Notes()])
    await runner.start()
    assert [report.differences for report in await runner.rebuild(dry_run=True)] == [0, 0]
    await runner.close()
    await store.close()
    kept = rows(tmp_path)
    assert len(kept["notes"]) == len(texts)
