"""A log moves between SQLite and PostgreSQL by backup and restore, and keeps everything."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import asyncpg
import pytest
from msgspec.structs import replace

from libs.event_log.backup import backup_chunks, record_backup
from libs.event_log.backup_reading import BackupError
from libs.event_log.blob_store import BlobStore
from libs.event_log.event import RecordedEvent
from libs.event_log.file_pieces import FileSum, pieces
from libs.event_log.kept_log import KeptLog
from libs.event_log.open_store import begin_new_log
from libs.event_log.postgres_store import PostgresEventStore
from libs.event_log.restore import Restore, RestoredLog
from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import EventStore, LogLocationError, RequestKey, RequestRecord
from libs.service_kit.settings import SQLITE
from tests.integration.event_log.events import collect, counted, noted, to
from tests.integration.event_log.served_log import SERVICE, TYPES, sealed

KEY = RequestKey("täster", "Method", "one", b"body")


async def filled(log: KeptLog) -> None:
    assert log.blobs is not None
    digest = await log.blobs.put(b"evidence")
    await log.store.append([to("a", noted("ä", reason="warum"), sealed(digest)), to("b", counted(7))], KEY)
    await log.store.append([to("c", *(counted(number) for number in range(1_500)))])


async def back_up(log: KeptLog, path: Path) -> str:
    head = await record_backup(log.store, actor="tester", reason="", correlation_id="")
    with path.open("wb") as file:
        async for piece in pieces(backup_chunks(log, head, "1.0")):
            if isinstance(piece, FileSum):
                return piece.sha256
            file.write(piece)
    raise AssertionError("no end")


async def restore(path: Path, sha256: str, url: str, state: Path) -> RestoredLog:
    def run() -> RestoredLog:
        return Restore(SERVICE, "2.0", 1).run(
            path, sha256, state, lambda work: begin_new_log(url, SERVICE, state, work)
        )

    return await asyncio.to_thread(run)


async def requests(store: EventStore) -> Sequence[RequestRecord]:
    return [record async for page in store.requests(store.head) for record in page]


async def same(now: EventStore, state: Path, then: EventStore) -> None:
    def without_hashes(events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        return [replace(event, hash=b"") for event in events]

    old, new = await collect(then.read()), await collect(now.read())
    assert without_hashes(new[1:]) == without_hashes(old[1:])
    assert await requests(now) == await requests(then)
    log = KeptLog(now, TYPES, BlobStore(state / "blobs"))
    verdict = await log.verify()
    assert (verdict.first_bad, verdict.events_checked, verdict.blobs_checked) == (None, len(old), 1)
    again = await now.append([to("z", noted("other"))], KEY)
    assert again.repeated and [event.position for event in again.events] == [2, 3, 4]
    await now.append([to("c", counted(0), expected=1_499)])
    assert now.head == len(old) + 1


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[KeptLog]:
    state = tmp_path / "old"
    store = await SqliteEventStore.open(state / "events.sqlite3", service=SERVICE, version="1.0")
    yield KeptLog(store, TYPES, BlobStore(state / "blobs"))
    await store.close()


async def test_from_sqlite_to_postgresql_and_back(sqlite: KeptLog, tmp_path: Path, postgres_url: str) -> None:
    await filled(sqlite)
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    sha256 = await back_up(sqlite, first)
    await restore(first, sha256, postgres_url, tmp_path / "replica")
    store = await PostgresEventStore.open(postgres_url, service=SERVICE, version="2.0")
    await same(store, tmp_path / "replica", sqlite.store)
    sha256 = await back_up(KeptLog(store, TYPES, BlobStore(tmp_path / "replica" / "blobs")), second)
    with pytest.raises(LogLocationError, match="never replaces"):
        await restore(second, sha256, postgres_url, tmp_path / "other")
    await restore(second, sha256, SQLITE, tmp_path / "new")
    back = await SqliteEventStore.open(tmp_path / "new" / "events.sqlite3", service=SERVICE, version="2.0")
    assert back.store_id != store.store_id
    new, old = await collect(back.read(1)), await collect(store.read(1))
    assert [replace(e, hash=b"") for e in new] == [replace(e, hash=b"") for e in old]
    assert await requests(back) == await requests(store)
    await back.close()
    await store.close()


async def test_a_damaged_backup_leaves_the_database_as_it_was(
    sqlite: KeptLog, tmp_path: Path, postgres_url: str
) -> None:
    await filled(sqlite)
    path = tmp_path / "first.tar"
    await back_up(sqlite, path)
    content = bytearray(path.read_bytes())
    content[content.rindex(b'"revision":1200,') + 12] ^= 1
    path.write_bytes(content)
    with pytest.raises(BackupError):
        await restore(path, hashlib.sha256(content).hexdigest(), postgres_url, tmp_path / "replica")
    connection = await asyncpg.connect(postgres_url)
    try:
        assert await connection.fetchval("SELECT to_regclass($1)", f"{SERVICE}.events") is None
    finally:
        await connection.close()
