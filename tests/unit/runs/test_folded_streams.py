"""What is kept in memory of a stream is never behind the log."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from labferry.events.v1 import run_events_pb2 as events
from labferry.sync.v1 import run_pb2
from libs.event_log.memory_store import MemoryEventStore
from libs.event_log.store import Expected
from services.sync_engine.engine_log import BY_ITSELF, Change, EngineLog, fold_run
from services.sync_engine.event_types import run_stream

RUN = "E/P/Runs/Run_1"
STATUSES = [run_pb2.SYNC_STATUS_PENDING, run_pb2.SYNC_STATUS_SYNCED, run_pb2.SYNC_STATUS_FAILED]


def _changed(to: int) -> events.RunSyncStatusChanged:
    return events.RunSyncStatusChanged(run=RUN, current=to)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.sampled_from(STATUSES), st.booleans()), max_size=12))
async def test_reads_between_and_during_appends_equal_a_fold_of_the_log(steps: list[tuple[int, bool]]) -> None:
    store = MemoryEventStore(service="sync_engine", version="0")
    log = EngineLog(store)
    stream = run_stream(RUN)

    async def look() -> None:
        before = len(await store.read_stream(stream))
        record = await log.run(RUN)
        after = len(await store.read_stream(stream))
        assert before <= record.revision + 1 <= after

    for status, together in steps:
        appending = log.append(BY_ITSELF, Change(stream, Expected.ANY, (_changed(status), _changed(status))))
        if together:
            await asyncio.gather(
                look(), appending, look(), log.append(BY_ITSELF, Change(stream, Expected.ANY, (_changed(status),)))
            )
        else:
            await appending
        await look()
        assert await log.run(RUN) == fold_run(RUN, await store.read_stream(stream))


async def test_what_others_append_to_a_shared_log_is_seen() -> None:
    store = MemoryEventStore(service="sync_engine", version="0")
    here, there = EngineLog(store, shared=True), EngineLog(store, shared=True)
    assert (await here.run(RUN)).sync_status is None
    await there.append(BY_ITSELF, Change(run_stream(RUN), Expected.NONE, (_changed(STATUSES[1]),)))
    assert (await here.run(RUN)).revision == 0
