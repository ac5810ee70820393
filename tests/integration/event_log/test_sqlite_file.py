"""What only a store in a file can do: be opened again, guarded, locked, refused, bounded."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from libs.event_log import log_lock, sqlite_committer
from libs.event_log.hash_chain import verify_chain
from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import (
    LogClosedError,
    LogDamagedError,
    LogInUseError,
    LogLocationError,
    RequestIdReusedError,
)
from libs.event_log.subscription import EventsStep, Subscription
from tests.integration.event_log.conformance import request
from tests.integration.event_log.events import collect, counted, noted, to


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteEventStore]:
    store = await SqliteEventStore.open(path, service="test", version="0.0.0")
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "events.sqlite3"


async def test_everything_is_there_after_a_reopen(path: Path) -> None:
    async with opened(path) as store:
        store_id = store.store_id
        first = await store.append([to("s", noted("a"), noted("b"))], request("r"))
        before = await collect(store.read())
    async with opened(path) as store:
        assert store.store_id == store_id
        assert await collect(store.read()) == before
        again = await store.append([to("s", noted("a"), noted("b"))], request("r"))
        assert again.repeated and list(again.events) == list(first.events)
        with pytest.raises(RequestIdReusedError):
            await store.append([to("s", noted("a"))], request("r", b"other"))
        await store.append([to("s", noted("c"), expected=1)])
        events = await collect(store.read())
    assert [event.position for event in events] == [1, 2, 3, 4]
    assert verify_chain(store_id, events) is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET reason = 'better' WHERE position = 2",
        "DELETE FROM events WHERE position = 3",
        "INSERT OR REPLACE INTO events SELECT * FROM events WHERE position = 2",
        "REPLACE INTO events SELECT 4, stream, revision, type, 'id', recorded_ns, actor, '', '', '', '', 0, hash,"
        " payload FROM events WHERE position = 2",
        "REPLACE INTO events SELECT 4, stream, 9, type, event_id, recorded_ns, actor, '', '', '', '', 0, hash, payload"
        " FROM events WHERE position = 2",
        "INSERT INTO events SELECT 9, stream, 9, type, 'id', recorded_ns, actor, '', '', '', '', 0, hash, payload"
        " FROM events WHERE position = 2",
        "UPDATE requests SET body_digest = x'00'",
        "DELETE FROM requests",
        "REPLACE INTO requests SELECT actor, method, request_id, x'00', 1, 1 FROM requests",
        "UPDATE log SET store_id = 'other'",
        "DELETE FROM log",
    ],
)
async def test_the_database_itself_refuses_changes(path: Path, statement: str) -> None:
    async with opened(path) as store:
        await store.append([to("s", noted("a"), noted("b"))], request("r"))
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)


async def test_a_second_opening_is_refused(path: Path) -> None:
    async with opened(path):
        with pytest.raises(LogInUseError, match="in use by another process"):
            await SqliteEventStore.open(path, service="test", version="0.0.0")
    async with opened(path) as store:
        assert store.head == 1


async def test_a_second_process_is_refused(path: Path) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path; from libs.event_log.sqlite_store import SqliteEventStore;"
        "asyncio.run(SqliteEventStore.open(Path(sys.argv[1]), service='test', version='0.0.0'))"
    )
    async with opened(path) as store:
        child = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
        )
        assert child.returncode == 1
        assert "LogInUseError" in child.stderr
        await store.append([to("s", noted("still writable"))])


def mount_table(*mounts: tuple[str, str]) -> str:
    return "\n".join(f"36 35 98:0 / {point} rw,noatime shared:1 - {kind} source rw" for point, kind in mounts)


def test_network_filesystems_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "my state"
    folder.mkdir()
    escaped = str(folder).replace(" ", "\\040")
    for kind in ("nfs4", "cifs", "fuse.sshfs", "fuse.rclone"):
        with pytest.raises(LogLocationError, match=kind):
            log_lock.refuse_network_filesystem(folder, mount_table(("/", "ext4"), (escaped, kind)))
    log_lock.refuse_network_filesystem(folder, mount_table(("/", "nfs"), (escaped, "ext4")))
    log_lock.refuse_network_filesystem(folder, mount_table(("/", "ext4"), (escaped + "/deeper", "nfs")))
    log_lock.refuse_network_filesystem(folder, mount_table(("/", "ext4"), (str(folder)[:-1], "nfs")))


async def test_a_file_of_another_program(path: Path) -> None:
    os.makedirs(path.parent)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE something (else_ TEXT)")
    with pytest.raises(LogLocationError, match="another program"):
        await SqliteEventStore.open(path, service="test", version="0.0.0")


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    await asyncio.to_thread(path.write_bytes, b"these are not the bytes that you are looking for" * 100)
    with pytest.raises(LogDamagedError, match="can't be read"):
        await SqliteEventStore.open(path, service="test", version="0.0.0")


async def test_a_log_of_a_later_version_is_left_alone(path: Path) -> None:
    async with opened(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(LogLocationError, match="version 99"):
        await SqliteEventStore.open(path, service="test", version="0.0.0")


async def test_the_quick_check_runs_beside_the_service(path: Path) -> None:
    async with opened(path) as store:
        await store.append([to("s", noted("a"))])
        assert await store.quick_checked() is None
        assert store.damage is None


async def test_closing_commits_what_waits(path: Path) -> None:
    store = await SqliteEventStore.open(path, service="test", version="0.0.0")
    appends = [asyncio.create_task(store.append([to("s", counted(number))])) for number in range(200)]
    await asyncio.sleep(0)
    await store.close()
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    acknowledged = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert all(isinstance(outcome, LogClosedError) for outcome in outcomes if isinstance(outcome, BaseException))
    async with opened(path) as store:
        assert store.head == 1 + len(acknowledged) == 201


async def test_a_reader_that_stays_where_it_is_does_not_hold_the_write_ahead_log(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 1 << 20
    monkeypatch.setattr(sqlite_committer, "WAL_LIMIT_BYTES", limit)
    async with opened(path) as store:
        await store.append([to("s", *(counted(number) for number in range(3_000)))])
        # A subscriber that takes one batch, and an export that takes one page, and then nothing for long.
        steps = Subscription(store, after=0).steps(asyncio.Event())
        pages = store.read(upto=store.head)
        first, page = await anext(steps), await anext(pages)
        largest = 0
        for _ in range(60):
            await store.append([to("s", *(noted("x" * 4_000) for _ in range(30)))])
            largest = max(largest, path.with_name(path.name + "-wal").stat().st_size)
        assert largest < 2 * limit
        # They go on as if nothing had happened.
        seen = [*page, *await collect(pages)]
        assert [event.position for event in seen] == list(range(1, 3_002))
        assert isinstance(first, EventsStep)
        followed = list(first.events)
        while followed[-1].position < store.head:
            step = await anext(steps)
            followed += step.events if isinstance(step, EventsStep) else ()
        await steps.aclose()
        assert [event.position for event in followed] == list(range(1, store.head + 1))


async def test_the_write_ahead_log_stays_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 1 << 20
    monkeypatch.setattr(sqlite_committer, "WAL_LIMIT_BYTES", limit)
    async with opened(path) as store:
        done = asyncio.Event()

        async def read_on() -> None:
            while not done.is_set():
                await collect(store.read(max(0, store.head - 300)))

        readers = [asyncio.create_task(read_on()) for _ in range(3)]
        largest = 0
        for _ in range(60):
            await store.append([to("s", *(noted("x" * 4_000) for _ in range(30)))])
            largest = max(largest, path.with_name(path.name + "-wal").stat().st_size)
        done.set()
        await asyncio.gather(*readers)
        assert store.head == 1 + 60 * 30
    assert largest < 4 * limit
