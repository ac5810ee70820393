"""The process dies at every point of an append, in the middle of a write, and at random; what it answered is kept."""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from libs.event_log.event import RecordedEvent
from libs.event_log.log_verification import verify_log
from libs.event_log.projection import ProjectionRunner
from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import RequestKey
from tests.faults.event_log.appending import POINTS
from tests.integration.event_log.counting import Notes, SumPerStream, notes
from tests.integration.event_log.events import EVENT_TYPES, collect

PATIENCE = 60.0
DEATHS_A_LOG = 20


@dataclass(frozen=True)
class Answered:
    """What the victim was told."""

    request: str
    position: int
    event_id: str


@dataclass
class Crime:
    """One log, and all that was answered about it by victims that are dead."""

    folder: Path
    process: subprocess.Popen[bytes]
    answered: list[Answered] = field(default_factory=list)
    deaths: int = 0

    def commit(self, ending: str, instant: float | None = None, **order: Any) -> None:
        """Has a victim write until it dies: by itself as `order` says, or killed `instant` seconds after its start."""
        self.deaths += 1
        assert self.process.stdin is not None
        order.update(folder=str(self.folder), session=str(self.deaths))
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()
        victim, until, output = 0, time.monotonic() + PATIENCE, b""
        while not output.endswith(f"died {ending}\n".encode()):
            output += self._read(until)
            assert b"\ndied " not in output or output.endswith(f"died {ending}\n".encode()), output[-200:]
            if not victim and b"ready\n" in output and instant is not None:
                victim = int(output.split()[1])
                until = time.monotonic() + instant
            if victim and time.monotonic() >= until:
                os.kill(victim, signal.SIGKILL)
                victim, instant, until = 0, None, time.monotonic() + PATIENCE
        for line in output.decode().splitlines():
            if line.startswith("answered "):
                _, name, position, event_id = line.split()
                self.answered.append(Answered(name, int(position), event_id))

    def _read(self, until: float) -> bytes:
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        if select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
            return os.read(descriptor, 1 << 20)
        return b""


@contextmanager
def crimes(tmp_path: Path) -> Iterator[Iterator[Crime]]:
    """Logs to die over, each for a few deaths: a crash must not hide what an earlier one left."""
    command = [sys.executable, "-m", "tests.faults.event_log.appending"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:

        def each() -> Iterator[Crime]:
            number = 0
            while True:
                number += 1
                folder = tmp_path / str(number)
                folder.mkdir()
                crime = Crime(folder, process)
                while crime.deaths < DEATHS_A_LOG:
                    yield crime

        yield each()
        process.communicate()
    assert process.returncode == 0


def check_whole(events: list[RecordedEvent]) -> None:
    """Each append had two events; never one without the other."""
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    for first, second in zip(events[1::2], events[2::2], strict=True):
        assert (first.type, second.type) == ("test.counted.v1", "test.noted.v1")
        assert first.stream[1:] == second.stream[1:]
        assert first.recorded_ns == second.recorded_ns


async def check(crime: Crime) -> None:
    """The chain holds, every answer is kept, nothing is half there, and the read models are those of a replay."""
    store = await SqliteEventStore.open(crime.folder / "events.sqlite3", service="test", version="0.0.0")
    runner = ProjectionRunner(store, EVENT_TYPES, crime.folder / "read_models.sqlite3", [SumPerStream(), Notes()])
    try:
        assert store.damage is None
        assert await store.quick_checked() is None
        assert (await verify_log(store)).first_break is None
        events = await collect(store.read())
        check_whole(events)
        for told in crime.answered:
            assert events[told.position - 1].event_id == told.event_id
        texts = [StringValue.FromString(event.payload).value for event in events if event.type == "test.noted.v1"]
        assert len(texts) == len(set(texts))
        assert {told.request for told in crime.answered} <= set(texts)
        requests = [record.request.request_id async for page in store.requests(store.head) for record in page]
        assert sorted(requests) == sorted(texts)
        for text in texts[-3:]:
            found = await store.find_request(RequestKey("tester", "write", text, text.encode()))
            assert found is not None and found.repeated and len(found.events) == 2
        await runner.start()
        assert await runner.query(notes) == texts
        assert [report.differences for report in await runner.rebuild(dry_run=True)] == [0, 0]
    finally:
        await runner.close()
        await store.close()


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_point_of_an_append(tmp_path: Path, point: str) -> None:
    with crimes(tmp_path) as all_crimes:
        for count in (1, 2, 3, 5, 8):
            crime = next(all_crimes)
            crime.commit("SIGKILL", point=point, count=count)
            asyncio.run(check(crime))
        assert crime.answered


@pytest.mark.slow
def test_a_write_cut_off_at_any_byte(tmp_path: Path) -> None:
    chance = random.Random(4711)
    # Around the ends of the write-ahead log's header, of a frame's header, and of a page in it.
    edges = [0, 1, 31, 32, 33, 55, 56, 57, 4_119, 4_120, 4_151, 4_152, 4_153, 8_271, 8_272]
    with crimes(tmp_path) as all_crimes:
        for offset in (*edges, *(chance.randrange(100_000) for _ in range(65))):
            crime = next(all_crimes)
            crime.commit("SIGXFSZ", bytes=offset)
            asyncio.run(check(crime))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_killed_at_random(tmp_path: Path, part: int) -> None:
    chance = random.Random()
    with crimes(tmp_path) as all_crimes:
        answers = 0
        for _ in range(40):
            crime = next(all_crimes)
            crime.commit("SIGKILL", instant=chance.uniform(0.0, 0.04))
            asyncio.run(check(crime))
            answers += len(crime.answered)
        assert answers
