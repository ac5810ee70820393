"""Checkpoints as a service keeps them: when they are made, where they go, and what a bad place does to nobody."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from libs.event_log import checkpoint_file, checkpoint_keeper, checkpoint_place
from libs.event_log.checkpoint import SignedCheckpoint, from_line
from libs.event_log.checkpoint_keeper import CheckpointKeeper, keeping_checkpoints
from libs.event_log.checkpoint_key import CheckpointKeyError
from libs.event_log.memory_store import MemoryEventStore
from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import EventStore, LogDamagedError, PositionBeyondHeadError
from libs.service_kit.settings import CheckpointSettings
from tests.integration.event_log.changed_file import tamper
from tests.integration.event_log.events import collect, counted, to

PATIENCE = 20.0


@pytest.fixture
async def store() -> AsyncIterator[MemoryEventStore]:
    store = MemoryEventStore(service="test", version="0.0.0")
    yield store
    await store.close()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


@asynccontextmanager
async def keeping(store: EventStore, state: Path, *folders: Path, **settings: float) -> AsyncIterator[CheckpointKeeper]:
    configured = CheckpointSettings(folders=folders, **{"every_events": 10, "every_minutes": 60, **settings})  # type: ignore[arg-type]
    async with keeping_checkpoints(store, "test", state, configured, structlog.get_logger()) as keeper:
        yield keeper


async def append(store: EventStore, count: int) -> None:
    await store.append([to("s", *(counted(number) for number in range(count)))])


def checkpoints(folder: Path) -> list[SignedCheckpoint]:
    """What the one file in a folder holds."""
    (path,) = folder.glob("test-*.jsonl")
    return [from_line(line) for line in path.read_bytes().splitlines()]


def positions(folder: Path) -> list[int]:
    return [signed.checkpoint.position for signed in checkpoints(folder)] if list(folder.glob("*.jsonl")) else []


async def until(condition: Callable[[], bool]) -> None:
    """Files are written by a thread of another's: they are looked at again and again."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


async def test_one_at_the_start_one_at_the_end_and_one_every_so_many_events(
    store: MemoryEventStore, tmp_path: Path, outside: Path
) -> None:
    state = tmp_path / "checkpoints"
    async with keeping(store, tmp_path, outside):
        await until(lambda: positions(outside) == [1])
        await append(store, 9)
        await append(store, 1)
        await until(lambda: positions(outside) == [1, 11])
        await append(store, 25)
        await until(lambda: positions(outside) == [1, 11, 36])
        await append(store, 3)
    assert positions(outside) == positions(state) == [1, 11, 36, 39]
    events = await collect(store.read())
    for signed in checkpoints(state):
        assert signed.is_genuine()
        assert signed.checkpoint.store_id == store.store_id
        assert signed.checkpoint.hash == events[signed.checkpoint.position - 1].hash
    assert [signed.checkpoint.number for signed in checkpoints(outside)] == [1, 2, 3, 4]
    assert checkpoints(outside) == checkpoints(state)


async def test_one_after_so_many_minutes(store: MemoryEventStore, tmp_path: Path, outside: Path) -> None:
    async with keeping(store, tmp_path, outside, every_minutes=0.0005):
        await until(lambda: positions(outside) == [1])
        await append(store, 2)
        await until(lambda: positions(outside) == [1, 3])


async def test_nothing_new_is_signed_twice(store: MemoryEventStore, tmp_path: Path, outside: Path) -> None:
    for _ in range(3):
        async with keeping(store, tmp_path, outside):
            pass
    assert positions(outside) == [1]
    await append(store, 1)
    async with keeping(store, tmp_path, outside):
        pass
    assert [(s.checkpoint.number, s.checkpoint.position) for s in checkpoints(outside)] == [(1, 1), (2, 2)]


async def test_one_on_request(store: MemoryEventStore, tmp_path: Path, outside: Path) -> None:
    await append(store, 5)
    async with keeping(store, tmp_path, outside) as keeper:
        await until(lambda: positions(outside) == [6])
        signed = await keeper.make(3)
        assert signed.checkpoint.position == 3
        assert signed in checkpoints(outside)
        with pytest.raises(PositionBeyondHeadError):
            await keeper.make(99)
        assert [s.checkpoint.position for s in await keeper.newest(2)] == [3, 6]


async def test_a_folder_that_comes_back_gets_what_it_missed(
    store: MemoryEventStore, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_keeper, "RETRY_SECONDS", 0.02)
    away = tmp_path / "away"
    with capture_logs() as logs:
        async with keeping(store, tmp_path, outside) as keeper:
            await until(lambda: keeper.places[1].delivered == 1)
            outside.rename(away)
            await append(store, 10)
            await until(lambda: positions(tmp_path / "checkpoints") == [1, 11])
            await append(store, 10)
            await until(lambda: keeper.places[1].problem != "")
            assert not outside.exists(), "a folder that isn't mounted must not be made"
            away.rename(outside)
            await until(lambda: positions(outside) == [1, 11, 21])
            await until(lambda: not keeper.places[1].problem)
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry["event"] for entry in warnings] == ["checkpoints_not_written"]


async def test_what_was_missed_is_brought_by_the_next_start(
    store: MemoryEventStore, tmp_path: Path, outside: Path
) -> None:
    outside.rmdir()
    async with keeping(store, tmp_path, outside):
        await append(store, 3)
    outside.mkdir()
    async with keeping(store, tmp_path, outside):
        pass
    assert positions(outside) == positions(tmp_path / "checkpoints")
    assert positions(outside)[-1] == 4


async def test_a_folder_that_hangs_holds_nobody_up(
    store: MemoryEventStore, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead network filesystem can't be made here, so the writing itself is made to hang."""
    monkeypatch.setattr(checkpoint_place, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(checkpoint_keeper, "RETRY_SECONDS", 0.02)
    hanging, write = threading.Event(), checkpoint_file.append

    def hang(path: Path, lines: Sequence[SignedCheckpoint]) -> None:
        if path.parent == outside:
            hanging.wait()
        write(path, lines)

    monkeypatch.setattr(checkpoint_file, "append", hang)
    async with keeping(store, tmp_path, outside) as keeper:
        await until(lambda: keeper.places[1].problem != "")
        await append(store, 10)
        await until(lambda: positions(tmp_path / "checkpoints") == [1, 11])
        assert positions(outside) == []
        hanging.set()
        await until(lambda: positions(outside) == [1, 11])


async def test_a_line_that_a_crash_cut_off(store: MemoryEventStore, tmp_path: Path, outside: Path) -> None:
    async with keeping(store, tmp_path, outside):
        pass
    (path,) = outside.glob("*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    await append(store, 1)
    async with keeping(store, tmp_path, outside):
        pass
    lines = path.read_bytes().split(b"\n")
    assert lines[0] == whole[:100]
    assert [from_line(line).checkpoint.number for line in lines[1:-1]] == [1, 2]


async def test_a_lost_state_folder_begins_a_new_series(store: MemoryEventStore, tmp_path: Path, outside: Path) -> None:
    async with keeping(store, tmp_path, outside):
        pass
    for path in (tmp_path / "checkpoints").glob("*"):
        path.unlink()
    async with keeping(store, tmp_path, outside):
        pass
    files = list(outside.glob("*.jsonl"))
    assert len(files) == 2
    assert {from_line(path.read_bytes()).checkpoint.number for path in files} == {1}


async def test_a_damaged_log_is_not_signed(tmp_path: Path, outside: Path) -> None:
    path = tmp_path / "events.sqlite3"
    store = await SqliteEventStore.open(path, service="test", version="0.0.0")
    await append(store, 5)
    await store.close()
    tamper(path, "DELETE FROM events WHERE position > 4")
    store = await SqliteEventStore.open(path, service="test", version="0.0.0")
    with capture_logs() as logs:
        async with keeping(store, tmp_path, outside) as keeper:
            with pytest.raises(LogDamagedError):
                await keeper.make()
    await store.close()
    assert positions(outside) == []
    assert "checkpoint_not_made" in {entry["event"] for entry in logs}


async def test_a_cancelled_request_for_one_loses_none(store: MemoryEventStore, tmp_path: Path, outside: Path) -> None:
    async with keeping(store, tmp_path, outside) as keeper:
        for _ in range(30):
            await append(store, 1)
            making = asyncio.create_task(keeper.make())
            await asyncio.sleep(0)
            making.cancel()
            await asyncio.wait({making})
    signed = checkpoints(outside)
    assert [s.checkpoint.number for s in signed] == list(range(1, len(signed) + 1))
    assert signed[-1].checkpoint.position == 31
    assert signed == checkpoints(tmp_path / "checkpoints")


def _key(state: Path) -> Path:
    return state / "keys" / "checkpoint.key"


async def test_the_key_is_made_once_and_is_private(store: MemoryEventStore, tmp_path: Path) -> None:
    async with keeping(store, tmp_path) as keeper:
        trusted = keeper.trusted
    assert stat.S_IMODE(_key(tmp_path).stat().st_mode) == 0o600
    assert stat.S_IMODE(_key(tmp_path).parent.stat().st_mode) == 0o700
    content = _key(tmp_path).read_bytes()
    async with keeping(store, tmp_path) as keeper:
        assert keeper.trusted == trusted
    assert _key(tmp_path).read_bytes() == content
    assert sorted(path.suffix for path in _key(tmp_path).parent.iterdir()) == [".key", ".pub"]


async def test_a_lost_key_is_replaced_and_the_old_public_one_still_trusted(
    store: MemoryEventStore, tmp_path: Path
) -> None:
    async with keeping(store, tmp_path) as keeper:
        (old,) = keeper.trusted
    _key(tmp_path).unlink()
    async with keeping(store, tmp_path) as keeper:
        assert old in keeper.trusted
        assert len(keeper.trusted) == 2


def _open_to_others(key: Path) -> None:
    key.chmod(0o640)


def _no_key(key: Path) -> None:
    key.write_bytes(b"nothing")


def _link(key: Path) -> None:
    key.rename(key.with_name("elsewhere"))
    key.symlink_to("elsewhere")


def _pipe(key: Path) -> None:
    key.unlink()
    os.mkfifo(key, 0o600)


@pytest.mark.parametrize("harm", [_open_to_others, _no_key, _link, _pipe])
async def test_a_key_that_is_not_the_services_alone(
    store: MemoryEventStore, tmp_path: Path, harm: Callable[[Path], Any]
) -> None:
    async with keeping(store, tmp_path):
        pass
    harm(_key(tmp_path))
    with pytest.raises(CheckpointKeyError) as caught:
        async with keeping(store, tmp_path):
            pass
    assert str(_key(tmp_path)) in str(caught.value)


async def test_the_file_is_what_the_pages_say(store: MemoryEventStore, tmp_path: Path, outside: Path) -> None:
    async with keeping(store, tmp_path, outside):
        pass
    (path,) = outside.glob("*.jsonl")
    fields = json.loads(path.read_bytes())
    assert fields["layout"] == "labferry.checkpoint.v1"
    assert path.name == f"test-{store.store_id}-{fields['series']}.jsonl"
