"""The committer: sends whatever waits to append_events() as one batch, and settles what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import asyncpg

from libs.event_log.event import RecordedEvent
from libs.event_log.postgres_batch import PendingAppend, Repeated, append_call, batch_arguments, take_outcomes
from libs.event_log.postgres_connection import PATIENCE_SECONDS, Connection, LastingConnection
from libs.event_log.postgres_errors import CONNECTION_LOST, store_error
from libs.event_log.postgres_schema import EVENT_COLUMNS
from libs.event_log.store import (
    AppendOutcomeUnknownError,
    AppendResult,
    EventStoreError,
    LeaseFence,
    LogClosedError,
    LogUnavailableError,
    RequestKey,
    StreamAppend,
)

_BATCH_APPENDS = 1_024
_BATCH_BYTES = 8 << 20


class _Waiting(PendingAppend):
    """A pending append with the future that its caller awaits."""

    __slots__ = ("released",)
    released: asyncio.Future[AppendResult]


class PostgresCommitter:
    """Group commit: while one batch is on its way, the next one gathers.

    A batch whose connection breaks is sent again over a new one, marked as sent before: the function then looks for
    its event ids first, under the ordering lock. So it is recorded once at most, even if the first transaction is
    still at work; that one would break on the ids' uniqueness.

    `recorded` is called with the last event of each batch before its callers are released.
    """

    def __init__(
        self,
        schema: str,
        connection: LastingConnection,
        new_id: Callable[[], str],
        clock: Callable[[], int] | None,
        recorded: Callable[[RecordedEvent], None],
    ) -> None:
        self._call = append_call(schema)
        self._range = f"SELECT {EVENT_COLUMNS} FROM {schema}.events WHERE position BETWEEN $1 AND $2 ORDER BY position"
        self._connection = connection
        self._new_id = new_id
        self._clock = clock
        self._recorded = recorded
        self._gathered: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._accepting = True
        self._running = asyncio.create_task(self._run(), name="event-log-committer")

    async def append(
        self, appends: Sequence[StreamAppend], request: RequestKey | None, fence: LeaseFence | None
    ) -> AppendResult:
        """Waits until the append is durable. Cancelling the caller doesn't stop the commit."""
        if not self._accepting:
            raise LogClosedError("the event log is closed")
        event_ids = [self._new_id() for append in appends for _ in append.events]
        waiting = _Waiting(appends, request, fence, event_ids)
        waiting.released = asyncio.get_running_loop().create_future()
        self._gathered.append(waiting)
        self._wake.set()
        return await waiting.released

    async def close(self) -> None:
        """Commits what was asked before, then closes the connection. May be called again."""
        self._accepting = False
        self._wake.set()
        await asyncio.wait({self._running})
        await self._connection.close()

    async def _run(self) -> None:
        batch: Sequence[_Waiting] = ()
        try:
            while self._accepting or self._gathered:
                await self._wake.wait()
                self._wake.clear()
                while self._gathered:
                    batch = self._next_batch()
                    await self._commit(batch)
                    _release(batch)
        finally:
            # Normally nobody waits any more; after a defect nobody may wait for ever.
            self._accepting = False
            _release((*batch, *self._gathered))

    def _next_batch(self) -> list[_Waiting]:
        count, size = 0, 0
        for waiting in self._gathered[:_BATCH_APPENDS]:
            size += waiting.payload_bytes
            if count and size > _BATCH_BYTES:
                break
            count += 1
        batch, self._gathered = self._gathered[:count], self._gathered[count:]
        return batch

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        now_ns = self._clock() if self._clock is not None else None
        loop = asyncio.get_running_loop()
        give_up = loop.time() + PATIENCE_SECONDS
        sent = sent_before = False
        try:
            while True:
                connection = await self._connection.get(give_up - loop.time())
                try:
                    sent_before, sent = sent, True
                    rows = await connection.fetch(self._call, *batch_arguments(batch, now_ns, sent_before))
                    await self._read_repeated(connection, take_outcomes(batch, rows))
                    break
                except CONNECTION_LOST:
                    self._connection.drop()
        except asyncpg.PostgresError as error:
            _fail(batch, store_error(error), in_doubt=sent_before)
            return
        except EventStoreError as error:
            _fail(batch, error, in_doubt=sent)
            return
        last = max((_last_event(waiting) for waiting in batch), key=lambda event: event.position if event else 0)
        if last is not None:
            self._recorded(last)

    async def _read_repeated(self, connection: Connection, repeated: Sequence[Repeated]) -> None:
        for again in repeated:
            rows = await connection.fetch(self._range, again.first_position, again.last_position)
            again.pending.outcome = AppendResult([RecordedEvent(*row) for row in rows], repeated=True)


def _last_event(waiting: PendingAppend) -> RecordedEvent | None:
    return waiting.outcome.events[-1] if isinstance(waiting.outcome, AppendResult) and waiting.outcome.events else None


def _fail(batch: Sequence[PendingAppend], error: EventStoreError, *, in_doubt: bool) -> None:
    if in_doubt:
        error = AppendOutcomeUnknownError(f"whether the append was recorded isn't known: {error}")
    for waiting in batch:
        waiting.outcome = error


def _release(batch: Sequence[_Waiting]) -> None:
    for waiting in batch:
        released, outcome = waiting.released, waiting.outcome
        if released.done():
            continue
        if isinstance(outcome, AppendResult):
            released.set_result(outcome)
        else:
            released.set_exception(outcome or LogUnavailableError("the event log's committer ended"))
