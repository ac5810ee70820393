"""The event store on SQLite: one file, one process."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Self

from libs.event_log.event import RecordedEvent
from libs.event_log.genesis import genesis
from libs.event_log.head_watch import HeadWatch
from libs.event_log.local_leases import LocalLeases
from libs.event_log.log_lock import LogLock, refuse_network_filesystem
from libs.event_log.recording import LogHead, check_appends
from libs.event_log.sqlite_batch import PendingAppend, SqliteBatchWriter
from libs.event_log.sqlite_check import QuickCheck, contradiction_at_head, highest_ever_recorded
from libs.event_log.sqlite_committer import SqliteCommitter
from libs.event_log.sqlite_reader import SqliteReader
from libs.event_log.sqlite_schema import open_writer, opening_errors, read_store_id
from libs.event_log.store import (
    AppendResult,
    EventStoreError,
    LeaseFence,
    LeaseLostError,
    LogClosedError,
    LogDamagedError,
    LogLocationError,
    RequestIdReusedError,
    RequestKey,
    RequestRecord,
    StreamAppend,
)


class SqliteEventStore:
    """An EventStore in one SQLite file. Made by `open`, ended by `close`; used on the loop that opened it."""

    def __init__(
        self,
        path: Path,
        store_id: str,
        head: LogHead,
        lock: LogLock,
        connection: sqlite3.Connection,
        writer: SqliteBatchWriter,
        damage: LogDamagedError | None,
    ) -> None:
        self._store_id = store_id
        self._lock = lock
        self._watch = HeadWatch(head.position)
        self._committer = SqliteCommitter(connection, path, writer, self._advanced)
        self._reader = SqliteReader(path)
        self._quick_check = QuickCheck(path)
        self._damage = damage
        self._leases = LocalLeases()
        self._fenced: set[asyncio.Task[AppendResult]] = set()

    @classmethod
    async def open(cls, path: Path, *, service: str, version: str, clock: Callable[[], int] = time.time_ns) -> Self:
        """Opens the log at `path`, or makes it. `clock`: nanoseconds since the epoch.

        LogInUseError when another process has it, LogLocationError where a log can't be kept, LogDamagedError when the
        file can't be read at all. A log that is damaged but readable opens and refuses appends.
        """
        opening = asyncio.ensure_future(asyncio.to_thread(_open_file, path, service, version, clock))
        try:
            lock, connection, writer, store_id, damage = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_discard_opened)
            raise
        store = cls(path, store_id, writer.head, lock, connection, writer, damage)
        ready = False
        try:
            await store._reader.open()
            store._quick_check.start()
            ready = True
        finally:
            if not ready:
                await store.close()
        return store

    @property
    def store_id(self) -> str:
        return self._store_id

    @property
    def head(self) -> int:
        return self._watch.head

    @property
    def oldest(self) -> int:
        return 1

    @property
    def damage(self) -> LogDamagedError | None:
        """What is wrong with the file, if it is known to be damaged; appends are refused then."""
        return self._damage or self._quick_check.damage

    async def quick_checked(self) -> LogDamagedError | None:
        """Waits for the check of the file's structure that began when the log was opened; what it found."""
        return await self._quick_check.finished()

    @property
    def leases(self) -> LocalLeases:
        return self._leases

    async def append(
        self, appends: Sequence[StreamAppend], request: RequestKey | None = None, fence: LeaseFence | None = None
    ) -> AppendResult:
        check_appends(appends, request)
        if (damage := self.damage) is not None:
            raise LogDamagedError(damage.position, damage.detail)
        if fence is None:
            return await self._committer.append(appends, request)
        # A task of its own: the lease stays in use until the commit, even when the caller goes away before.
        appending = asyncio.create_task(self._append_fenced(appends, request, fence), name="event-log-fenced-append")
        self._fenced.add(appending)
        appending.add_done_callback(self._fenced_append_done)
        return await asyncio.shield(appending)

    async def find_request(self, request: RequestKey) -> AppendResult | None:
        recorded = await self._reader.request(request)
        if recorded is None:
            return None
        if recorded.body_digest != request.body_digest:
            raise RequestIdReusedError(request.request_id)
        events = await self._reader.range(recorded.first_position, recorded.last_position)
        return AppendResult(events, repeated=True)

    def requests(self, upto: int) -> AsyncIterator[Sequence[RequestRecord]]:
        return self._reader.requests(upto)

    def read(
        self,
        after: int = 0,
        *,
        upto: int | None = None,
        stream: str | None = None,
        stream_prefix: str | None = None,
        types: Sequence[str] = (),
        limit: int | None = None,
    ) -> AsyncIterator[Sequence[RecordedEvent]]:
        last = self.head if upto is None else min(upto, self.head)
        return self._reader.pages(after, last, stream=stream, stream_prefix=stream_prefix, types=types, limit=limit)

    def read_backwards(
        self,
        before: int | None = None,
        *,
        stream: str | None = None,
        types: Sequence[str] = (),
        limit: int | None = None,
    ) -> AsyncIterator[Sequence[RecordedEvent]]:
        last = self.head if before is None else min(before - 1, self.head)
        return self._reader.pages(0, last, stream=stream, types=types, limit=limit, backwards=True)

    async def read_stream(self, stream: str, *, upto_position: int | None = None) -> Sequence[RecordedEvent]:
        return await self._reader.stream(stream, self.head if upto_position is None else upto_position)

    async def last_position_at(self, recorded_ns: int) -> int:
        return await self._reader.last_position_at(recorded_ns, self.head)

    async def wait_beyond(self, position: int) -> int:
        return await self._watch.wait_beyond(position)

    async def close(self) -> None:
        """Commits what was asked before, then lets go of the file. May be called again."""
        await self._committer.close()
        self._watch.end(lambda: LogClosedError("the event log is closed"))
        await self._quick_check.close()
        await self._reader.close()
        self._lock.release()

    async def _append_fenced(
        self, appends: Sequence[StreamAppend], request: RequestKey | None, fence: LeaseFence
    ) -> AppendResult:
        try:
            with self._leases.fenced(fence):
                return await self._committer.append(appends, request)
        except LeaseLostError:
            if request is not None and (earlier := await self.find_request(request)) is not None:
                return earlier
            raise

    def _fenced_append_done(self, appending: asyncio.Task[AppendResult]) -> None:
        self._fenced.discard(appending)
        if not appending.cancelled():
            # Marks the error as seen; a caller that was cancelled doesn't ask for it any more.
            appending.exception()

    def _advanced(self, head: LogHead) -> None:
        self._watch.advance(head.position)


_OpenedFile = tuple[LogLock, sqlite3.Connection, SqliteBatchWriter, str, LogDamagedError | None]


def _open_file(path: Path, service: str, version: str, clock: Callable[[], int]) -> _OpenedFile:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise LogLocationError(f"the event log's folder {path.parent} can't be made: {error.strerror}") from error
    refuse_network_filesystem(path.parent)
    lock = LogLock(path)
    connection: sqlite3.Connection | None = None
    opened = False
    try:
        connection = open_writer(path)
        with opening_errors(path):
            store_id = read_store_id(connection)
            writer = SqliteBatchWriter(connection, store_id, clock)
            writer.load_head()
            if writer.head.position == 0:
                if (highest := highest_ever_recorded(connection)) > 0:
                    raise LogDamagedError(1, f"{path} held {highest} events, and all of them are gone")
                first = PendingAppend((genesis(store_id, service, version),), None)
                writer.commit([first])
                if isinstance(first.outcome, EventStoreError):
                    raise first.outcome
            damage = contradiction_at_head(connection, store_id)
        opened = True
    finally:
        if not opened:
            if connection is not None:
                connection.close()
            lock.release()
    return lock, connection, writer, store_id, damage


def _discard_opened(opening: asyncio.Future[_OpenedFile]) -> None:
    if opening.cancelled() or opening.exception() is not None:
        return
    lock, connection, *_ = opening.result()
    connection.close()
    lock.release()
