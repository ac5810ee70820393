"""The committer: one thread that owns the one writing connection and commits whatever waits as one batch."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

from libs.event_log.recording import LogHead
from libs.event_log.sqlite_batch import PendingAppend, SqliteBatchWriter
from libs.event_log.sqlite_schema import BUSY_TIMEOUT_MS, WAL_LIMIT_BYTES
from libs.event_log.store import (
    AppendResult,
    EventStoreError,
    LogClosedError,
    LogUnavailableError,
    RequestKey,
    StreamAppend,
)

_BATCH_APPENDS = 1_024
_BATCH_BYTES = 8 << 20
_CHECKPOINT_WAIT_MS = 100
_GATHER_SECONDS = 0.002
_SIBLINGS = 4


class _Waiting(PendingAppend, eq=False, kw_only=True):
    """A pending append with the future that its caller awaits."""

    released: asyncio.Future[AppendResult]


class SqliteCommitter:
    """Group commit: while one batch is being made durable, the next one gathers.

    `advanced` is called on the loop after each batch, before its callers are released.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, writer: SqliteBatchWriter, advanced: Callable[[LogHead], None]
    ) -> None:
        self._connection = connection
        self._wal_path = path.with_name(path.name + "-wal")
        self._wal_limit = WAL_LIMIT_BYTES
        self._writer = writer
        self._advanced = advanced
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[list[_Waiting] | None] = SimpleQueue()
        self._gathered: list[_Waiting] = []
        self._last_batch = 0
        self._waiting: set[_Waiting] = set()
        self._ended = asyncio.Event()
        self._accepting = True
        # A daemon, so that a process which forgot to close its log can still end.
        self._thread = threading.Thread(target=self._run, name="event-log-committer", daemon=True)
        self._thread.start()

    def append(self, appends: Sequence[StreamAppend], request: RequestKey | None) -> asyncio.Future[AppendResult]:
        """Done when the append is durable. Cancelling it doesn't stop the commit."""
        if not self._accepting:
            raise LogClosedError("the event log is closed")
        released: asyncio.Future[AppendResult] = self._loop.create_future()
        waiting = _Waiting(appends, request, released=released)
        self._waiting.add(waiting)
        if not self._gathered:
            # All appends of one turn of the loop are handed over at once: the thread is woken once for them.
            self._loop.call_soon(self._hand_over)
        self._gathered.append(waiting)
        return released

    async def close(self) -> None:
        """Commits what was handed over before, then closes the connection. May be called again."""
        if self._accepting:
            self._accepting = False
            self._hand_over()
            self._queue.put(None)
        await self._ended.wait()

    def _hand_over(self) -> None:
        if self._gathered:
            self._queue.put(self._gathered)
            self._gathered = []

    def _run(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                self._writer.commit(batch)
                self._loop.call_soon_threadsafe(self._release, batch, self._writer.head)
                self._bound_wal()
        finally:
            self._connection.close()
            self._loop.call_soon_threadsafe(self._end)

    def _next_batch(self) -> list[_Waiting] | None:
        batch = self._queue.get()
        if batch is None:
            return None
        if len(batch) < self._last_batch and self._last_batch >= _SIBLINGS:
            # Others are at it too: a moment's wait makes one larger batch of several small ones, which costs less.
            time.sleep(_GATHER_SECONDS)
        size = _payload_bytes(batch)
        while len(batch) < _BATCH_APPENDS and size < _BATCH_BYTES:
            try:
                more = self._queue.get_nowait()
            except Empty:
                break
            if more is None:
                # The end comes after this batch.
                self._queue.put(None)
                break
            batch += more
            size += _payload_bytes(more)
        self._last_batch = len(batch)
        return batch

    def _bound_wal(self) -> None:
        # SQLite folds its write-ahead log back only when no reader uses it; under steady reading it would grow on.
        try:
            size = os.stat(self._wal_path).st_size
        except FileNotFoundError:
            return
        if size <= self._wal_limit:
            return
        self._connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_WAIT_MS}")
        try:
            (busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError:
            # Nothing is lost: the events are in the write-ahead log, and if the disk is full the next commit says so.
            busy = True
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        # Readers that never pause would otherwise make every commit wait for them in vain.
        self._wal_limit = size + WAL_LIMIT_BYTES // 4 if busy else WAL_LIMIT_BYTES

    def _release(self, batch: Sequence[_Waiting], head: LogHead) -> None:
        self._advanced(head)
        for waiting in batch:
            self._waiting.discard(waiting)
            released, outcome = waiting.released, waiting.outcome
            if released.done():
                continue
            if isinstance(outcome, AppendResult):
                released.set_result(outcome)
            elif isinstance(outcome, EventStoreError):
                released.set_exception(outcome)

    def _end(self) -> None:
        # Normally nobody waits any more; after a defect on the thread nobody may wait for ever.
        self._accepting = False
        for waiting in self._waiting:
            if not waiting.released.done():
                waiting.released.set_exception(LogUnavailableError("the event log's committer ended"))
        self._waiting.clear()
        self._ended.set()


def _payload_bytes(batch: Sequence[PendingAppend]) -> int:
    return sum(len(event.payload) for pending in batch for append in pending.appends for event in append.events)
