"""One batch of appends as one SQLite transaction. Runs on the committer's thread alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from msgspec.structs import astuple

from libs.event_log.event import RecordedEvent
from libs.event_log.recording import LogHead, Recorder
from libs.event_log.sqlite_schema import (
    EVENT_COLUMNS,
    event_from_row,
    insert_events_sql,
    insert_requests_sql,
)
from libs.event_log.store import (
    AppendResult,
    EventStoreError,
    LogDamagedError,
    LogDiskFullError,
    LogUnavailableError,
    RequestIdReusedError,
    RequestKey,
    RevisionConflictError,
    StreamAppend,
)
from libs.event_log.uuid7 import Uuid7Source

_KNOWN_STREAMS_LIMIT = 100_000
_INSERT_CHUNK = 64
_LOOKUP_CHUNK = 500

T = TypeVar("T")
RequestName = tuple[str, str, str]
RequestRow = tuple[str, str, str, bytes, int, int]


class PendingAppend(msgspec.Struct, eq=False):
    """An append on its way: what is asked, and after the commit its outcome."""

    appends: Sequence[StreamAppend]
    request: RequestKey | None
    outcome: AppendResult | EventStoreError | None = None


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """What the log holds of a request. An append without events has `last_position` = `first_position` - 1."""

    body_digest: bytes
    first_position: int
    last_position: int


def request_name(request: RequestKey) -> RequestName:
    return request.actor, request.method, request.request_id


class SqliteBatchWriter:
    """Commits batches on the one writing connection and knows the log's head and the streams' revisions."""

    def __init__(self, connection: sqlite3.Connection, store_id: str, now_ns: Callable[[], int]) -> None:
        self._connection = connection
        self._store_id = store_id
        self._now_ns = now_ns
        self._ids = Uuid7Source()
        self._revisions: dict[str, int] = {}
        self._head_known = False
        self.head = LogHead()

    def load_head(self) -> None:
        """Reads the end of the log. sqlite3.Error when that fails."""
        row = self._connection.execute(
            "SELECT position, hash, recorded_ns FROM events ORDER BY position DESC LIMIT 1"
        ).fetchone()
        self.head = LogHead(*row) if row else LogHead()
        self._revisions.clear()
        self._head_known = True

    def commit(self, batch: Sequence[PendingAppend]) -> None:
        """Gives each append its outcome. One that is refused leaves its neighbours alone; one commit releases all."""
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                if not self._head_known:
                    self.load_head()
                recorder = self._record(batch)
        except sqlite3.Error as error:
            # What reached the file is uncertain now, so the next batch looks at it again.
            self._head_known = False
            for pending in batch:
                pending.outcome = append_failure(error)
            return
        self.head = recorder.head
        if len(self._revisions) > _KNOWN_STREAMS_LIMIT:
            self._revisions.clear()
        self._revisions.update(recorder.revisions)

    def _record(self, batch: Sequence[PendingAppend]) -> Recorder:
        recorder = Recorder(self._store_id, self.head, self._known_revisions(batch), self._ids, self._now_ns())
        requests = self._known_requests(batch)
        recorded_here: dict[RequestName, tuple[RequestKey, Sequence[RecordedEvent]]] = {}
        events: list[RecordedEvent] = []
        request_rows: list[RequestRow] = []
        for pending in batch:
            request = pending.request
            try:
                if request is not None:
                    name = request_name(request)
                    if name in recorded_here:
                        pending.outcome = _repeat_in_batch(request, *recorded_here[name])
                        continue
                    if name in requests:
                        pending.outcome = self._repeat(request, requests[name])
                        continue
                recorded = recorder.record(pending.appends)
            except (RevisionConflictError, RequestIdReusedError) as refusal:
                pending.outcome = refusal
                continue
            pending.outcome = AppendResult(recorded)
            events += recorded
            if request is not None:
                recorded_here[name] = (request, recorded)
                last = recorder.head.position
                first = last - len(recorded) + 1
                request_rows.append((*name, request.body_digest, first, last))
        self._insert_events(events)
        self._insert_requests(request_rows)
        return recorder

    def _known_revisions(self, batch: Sequence[PendingAppend]) -> dict[str, int]:
        revisions: dict[str, int] = {}
        unknown: set[str] = set()
        for pending in batch:
            for append in pending.appends:
                revision = self._revisions.get(append.stream)
                if revision is None:
                    unknown.add(append.stream)
                else:
                    revisions[append.stream] = revision
        for streams in _chunks(list(unknown), _LOOKUP_CHUNK):
            marks = ", ".join("?" * len(streams))
            rows = self._connection.execute(
                f"SELECT stream, max(revision) FROM events WHERE stream IN ({marks}) GROUP BY stream", streams
            )
            revisions.update(rows.fetchall())
        return revisions

    def _known_requests(self, batch: Sequence[PendingAppend]) -> dict[RequestName, RecordedRequest]:
        names = [request_name(pending.request) for pending in batch if pending.request is not None]
        known: dict[RequestName, RecordedRequest] = {}
        for some in _chunks(names, _LOOKUP_CHUNK):
            marks = ", ".join(["(?, ?, ?)"] * len(some))
            rows = self._connection.execute(
                "SELECT actor, method, request_id, body_digest, first_position, last_position FROM requests"
                f" WHERE (actor, method, request_id) IN (VALUES {marks})",
                [part for name in some for part in name],
            )
            known.update(
                {(actor, method, key): RecordedRequest(*rest) for actor, method, key, *rest in rows.fetchall()}
            )
        return known

    def _repeat(self, request: RequestKey, recorded: RecordedRequest) -> AppendResult:
        if recorded.body_digest != request.body_digest:
            raise RequestIdReusedError(request.request_id)
        cursor = self._connection.execute(
            f"SELECT {EVENT_COLUMNS} FROM events WHERE position BETWEEN ? AND ? ORDER BY position",
            (recorded.first_position, recorded.last_position),
        )
        return AppendResult([event_from_row(cursor, row) for row in cursor.fetchall()], repeated=True)

    def _insert_requests(self, rows: Sequence[RequestRow]) -> None:
        for some in _powers_of_two(rows):
            self._connection.execute(insert_requests_sql(len(some)), [value for row in some for value in row])

    def _insert_events(self, events: Sequence[RecordedEvent]) -> None:
        for some in _powers_of_two(events):
            values: list[object] = []
            for event in some:
                # The fields of an event are its row.
                values += astuple(event)
            self._connection.execute(insert_events_sql(len(some)), values)


def _repeat_in_batch(request: RequestKey, first: RequestKey, events: Sequence[RecordedEvent]) -> AppendResult:
    if first.body_digest != request.body_digest:
        raise RequestIdReusedError(request.request_id)
    return AppendResult(events, repeated=True)


def _chunks(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _powers_of_two(items: Sequence[T]) -> Iterable[Sequence[T]]:
    """Cuts into few pieces of few different sizes, which keeps the number of prepared statements small."""
    start, size = 0, _INSERT_CHUNK
    while start < len(items):
        while size > len(items) - start:
            size //= 2
        yield items[start : start + size]
        start += size


def append_failure(error: sqlite3.Error) -> EventStoreError:
    """What an append's caller learns of SQLite's refusal."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return LogDiskFullError("the event log's disk is full; nothing was recorded")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT):
        return LogDamagedError(0, str(error))
    return LogUnavailableError(f"the event log can't be written: {error}")
