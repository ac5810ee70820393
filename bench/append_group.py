"""[append-group] Durable appends of one event each by 64 waiting writers, against what SQLite does without a log.

Two peers, both on a table with the log's columns and unique indexes, but without hash chain, guards and requests: one
insert and one commit an event through aiosqlite, the way applications use it; and batches of 64 prepared rows through
plain sqlite3, the most that one thread gets out of the file. All with synchronous=FULL.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiosqlite

from bench.table import Better, Row, Sample
from labferry.events.v1.job_events_pb2 import JobCopied
from libs.event_log.event import NewEvent
from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import Expected, StreamAppend

WRITERS = 64
MEASURED_SECONDS = 3.0
_FOLDER = Path("build/bench/append-group")
"""Under the checkout, because a temporary folder may lie in memory, where fsync costs nothing."""
_TYPE = "sync.job.copied.v1"
_PAYLOAD = JobCopied(
    attempt=1, manifest_blob="1" * 64, files_blob="2" * 64, file_count=5_000, byte_count=1 << 40
).SerializeToString() + bytes(160)
_TABLE = """
CREATE TABLE events (
    position INTEGER PRIMARY KEY, stream TEXT NOT NULL, revision INTEGER NOT NULL, type TEXT NOT NULL,
    event_id TEXT NOT NULL UNIQUE, recorded_ns INTEGER NOT NULL, actor TEXT NOT NULL, payload BLOB NOT NULL,
    hash BLOB NOT NULL, UNIQUE (stream, revision)
) STRICT
"""
_INSERT = (
    "INSERT INTO events (stream, revision, type, event_id, recorded_ns, actor, payload, hash)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_databases = itertools.count()


@asynccontextmanager
async def _folder() -> AsyncIterator[None]:
    _empty_folder()
    yield
    shutil.rmtree(_FOLDER)


def _empty_folder() -> None:
    shutil.rmtree(_FOLDER, ignore_errors=True)
    _FOLDER.mkdir(parents=True)


def _new_database() -> Path:
    return _FOLDER.resolve() / f"{next(_databases)}.sqlite3"


def _row(writer: int, revision: int) -> tuple[object, ...]:
    # Time-ordered, as the log's own: random ones would cost the peer 40 % of its rate.
    event_id = str(uuid.UUID(int=(time.time_ns() << 64) + writer))
    return (f"job-{writer}", revision, _TYPE, event_id, time.time_ns(), "operator-1", _PAYLOAD, bytes(32))


async def _appends_a_second(append: Callable[[int, int], Awaitable[object]]) -> float:
    """`append` gets a writer's number and how many appends it made before."""
    counts = [0] * WRITERS
    began = time.perf_counter()
    deadline = began + MEASURED_SECONDS

    async def writer(number: int) -> None:
        while time.perf_counter() < deadline:
            await append(number, counts[number])
            counts[number] += 1

    async with asyncio.TaskGroup() as writers:
        for number in range(WRITERS):
            writers.create_task(writer(number))
    return sum(counts) / (time.perf_counter() - began)


async def ours() -> Sample:
    store = await SqliteEventStore.open(_new_database(), service="bench", version="0")
    event = NewEvent(_TYPE, _PAYLOAD, "operator-1")

    async def append(writer: int, revision: int) -> None:
        expected = revision - 1 if revision else Expected.NONE
        await store.append((StreamAppend(f"job-{writer}", expected, (event,)),))

    try:
        return Sample(await _appends_a_second(append))
    finally:
        await store.close()


async def one_insert_a_commit() -> Sample:
    async with aiosqlite.connect(_new_database()) as connection:
        await connection.execute("PRAGMA journal_mode = WAL")
        await connection.execute("PRAGMA synchronous = FULL")
        await connection.execute(_TABLE)
        # On one connection a commit would end a neighbour's transaction too.
        turn = asyncio.Lock()

        async def append(writer: int, revision: int) -> None:
            async with turn:
                await connection.execute(_INSERT, _row(writer, revision))
                await connection.commit()

        return Sample(await _appends_a_second(append))


def raw_batches() -> Sample:
    with closing(sqlite3.connect(_new_database(), isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(_TABLE)
        committed, spent = 0, 0.0
        while spent < MEASURED_SECONDS:
            rows = [_row(writer, committed // WRITERS) for writer in range(WRITERS)]
            began = time.perf_counter()
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(_INSERT, rows)
            spent += time.perf_counter() - began
            committed += len(rows)
    return Sample(committed / spent)


AGAINST_ONE_A_COMMIT = Row(
    name="append-group",
    unit="events/s",
    better=Better.HIGHER,
    target=10,
    peer="aiosqlite, one insert a commit",
    run_ours=ours,
    run_peer=one_insert_a_commit,
    around=_folder,
)
AGAINST_RAW_BATCHES = Row(
    name="append-group",
    unit="events/s",
    better=Better.HIGHER,
    target=0.6,
    peer="sqlite3, batches of 64 prepared rows",
    run_ours=ours,
    run_peer=raw_batches,
    around=_folder,
)
