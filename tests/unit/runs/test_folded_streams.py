"""What is kept in memory of a stream is never behind the log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import repeat

from hypothesis import example, given
from hypothesis import strategies as st

from labferry.events.v1 import run_events_pb2 as events
from labferry.sync.v1 import run_pb2
from libs.event_log.event import RecordedEvent
from libs.event_log.memory_store import MemoryEventStore
from libs.event_log.store import AppendResult, Expected, LeaseFence, RequestKey, StreamAppend
from services.sync_engine.engine_log import BY_ITSELF, Change, EngineLog, fold_run
from services.sync_engine.event_types import run_stream

RUN = "E/P/Runs/Run_1"
STATUSES = [run_pb2.SYNC_STATUS_PENDING, run_pb2.SYNC_STATUS_SYNCED, run_pb2.SYNC_STATUS_FAILED]


class SlowStore(MemoryEventStore):
    """What was read or recorded is told a few turns of the loop later, as from a thread: of a read after as many as
    `turns` has for it, so that a later read may end first."""

    turns: Iterator[int] = repeat(3)

    async def read_stream(self, stream: str, *, upto_position: int | None = None) -> Sequence[RecordedEvent]:
        events = await super().read_stream(stream, upto_position=upto_position)
        await _turns(next(self.turns, 3))
        return events

    async def append(
        self, appends: Sequence[StreamAppend], request: RequestKey | None = None, fence: LeaseFence | None = None
    ) -> AppendResult:
        await _turns(1)
        result = await super().append(appends, request, fence)
        await _turns(1)
        return result


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def _changed(to: int) -> events.RunSyncStatusChanged:
    return events.RunSyncStatusChanged(run=RUN, current=to)  # type: ignore[arg-type]


@given(
    st.lists(st.tuples(st.integers(0, 8), st.sampled_from([None, *STATUSES])), min_size=1, max_size=12),
    st.lists(st.integers(0, 8), max_size=12),
)
@example([(0, None), (1, None), (3, STATUSES[1])], [8, 1])
async def test_however_reads_and_appends_overlap_what_is_known_equals_a_fold_of_the_log(
    steps: list[tuple[int, int | None]], turns: list[int]
) -> None:
    store = SlowStore(service="sync_engine", version="0")
    store.turns = iter(turns)
    log = EngineLog(store)
    stream = run_stream(RUN)

    async def step(after: int, status: int | None) -> None:
        await _turns(after)
        if status is not None:
            await log.append(BY_ITSELF, Change(stream, Expected.ANY, (_changed(status),)))
        recorded = len(await MemoryEventStore.read_stream(store, stream))
        assert (await log.run(RUN)).revision + 1 >= recorded

    await asyncio.gather(*(step(*one) for one in steps))
    assert await log.run(RUN) == fold_run(RUN, await store.read_stream(stream))


async def test_what_others_append_to_a_shared_log_is_seen() -> None:
    store = MemoryEventStore(service="sync_engine", version="0")
    here, there = EngineLog(store, shared=True), EngineLog(store, shared=True)
    assert (await here.run(RUN)).sync_status is None
    await there.append(BY_ITSELF, Change(run_stream(RUN), Expected.NONE, (_changed(STATUSES[1]),)))
    assert (await here.run(RUN)).revision == 0
