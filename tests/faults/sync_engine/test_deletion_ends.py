"""How a deletion ended is recorded as soon as the log takes it, and is no untruth until then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from labferry.events.v1 import run_events_pb2
from libs.event_log.store import (
    AppendOutcomeUnknownError,
    AppendResult,
    EventStoreError,
    LeaseFence,
    LogDiskFullError,
    LogUnavailableError,
    RequestKey,
    StreamAppend,
)
from libs.run_tree.creation_record import SyncStatus
from libs.service_kit.errors import UnavailableError
from services.sync_engine.cleanup.interlocks import CleanupRules
from services.sync_engine.cleanup.ticket import Limits
from services.sync_engine.event_types import EVENT_TYPES
from services.sync_engine.jobs.job import JobState
from services.sync_engine.runs.run import RunRecord
from tests.faults.sync_engine.engine_parts import RUN, Parts, engine_parts
from tests.integration.sync_engine.test_cleanup import data_files

RULES = CleanupRules(True, 1, timedelta(0), True, Limits(1000, 1 << 30))
FULL = LogDiskFullError("the log's disk is full")
ENDED = "sync.run.cleanup_ended.v1"


@dataclass
class FailingLog:
    """Takes no end of a deletion while `failure` is set; `took` while it does so all the same."""

    parts: Parts
    failure: EventStoreError | None = FULL
    took: bool = False
    refused: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        store = self.parts.bench.log.store
        append = store.append

        async def failing(
            appends: Sequence[StreamAppend], request: RequestKey | None = None, fence: LeaseFence | None = None
        ) -> AppendResult:
            if self.failure is None or not any(e.type == ENDED for a in appends for e in a.events):
                return await append(appends, request, fence)
            if self.took:
                await append(appends, request, fence)
            self.refused.set()
            raise self.failure

        store.append = failing  # type: ignore[method-assign]

    async def until_refused(self) -> None:
        async with asyncio.timeout(60):
            await self.refused.wait()


async def proven(parts: Parts) -> None:
    for name in ("a.tif", "b.tif"):
        (parts.here / name).write_bytes(b"pixels")
    await parts.bring()


async def how_it_ended(parts: Parts) -> list[run_events_pb2.RunCleanupEnded]:
    payloads = [EVENT_TYPES.decode(e) for e in await parts.bench.log.store.read_stream(f"run-{RUN}")]
    return [p for p in payloads if isinstance(p, run_events_pb2.RunCleanupEnded)]


async def state(parts: Parts) -> JobState:
    (job,) = await parts.bench.jobs_of_run(RUN)
    return job.state


@pytest.mark.parametrize("failure", [FULL, LogUnavailableError("no connection")])
async def test_what_could_not_be_recorded_is_recorded_as_soon_as_the_log_takes_it(
    tmp_path: Path, failure: EventStoreError
) -> None:
    async with engine_parts(tmp_path, RULES) as parts:
        await proven(parts)
        log = FailingLog(parts, failure)
        with capture_logs() as lines:
            cleaning = asyncio.create_task(parts.clean())
            await log.until_refused()
            log.refused.clear()
            await log.until_refused()
            assert data_files(parts.here) == set()
            assert await state(parts) is JobState.CLEANUP_ELIGIBLE, "it isn't cleaned before the log says so"
            log.failure = None
            cleaned = await cleaning
        assert (cleaned.cleaned, cleaned.file_count) == (True, 2)
        assert {line["problem"] for line in lines if line["event"] == "cleanup_end_not_recorded_yet"} == {str(failure)}
        assert await state(parts) is JobState.CLEANED
        (ended,) = await how_it_ended(parts)
        assert (ended.file_count, ended.interrupted) == (2, False)


async def test_a_caller_that_went_away_takes_nothing_back(tmp_path: Path) -> None:
    async with engine_parts(tmp_path, RULES) as parts:
        await proven(parts)
        log = FailingLog(parts)
        caller = asyncio.create_task(parts.clean())
        await log.until_refused()
        caller.cancel()
        with suppress(asyncio.CancelledError):
            await caller
        log.failure = None
        # The next one waits for its turn.
        assert (await parts.clean()).cleaned
        (ended,) = await how_it_ended(parts)
        assert (ended.file_count, ended.interrupted) == (2, False)


async def test_an_append_whose_answer_got_lost_is_not_repeated(tmp_path: Path) -> None:
    async with engine_parts(tmp_path, RULES) as parts:
        await proven(parts)
        FailingLog(parts, AppendOutcomeUnknownError("the connection broke"), took=True)
        assert (await parts.clean()).cleaned
        assert len(await how_it_ended(parts)) == 1
        assert await state(parts) is JobState.CLEANED


async def test_the_engine_ends_at_once_and_the_next_one_records_what_is_left(tmp_path: Path) -> None:
    async with engine_parts(tmp_path, RULES) as parts:
        await proven(parts)
        log = FailingLog(parts)
        cleaning = asyncio.create_task(parts.clean())
        await log.until_refused()
        async with asyncio.timeout(30):
            await parts.cleaner.close()
        with pytest.raises(UnavailableError, match="the engine ends"):
            await cleaning
        # An engine starts all the same while the log takes nothing.
        await parts.restart()
        assert await state(parts) is JobState.CLEANUP_ELIGIBLE
        log.failure = None
        await parts.restart()
        assert await state(parts) is JobState.CLEANED
        (ended,) = await how_it_ended(parts)
        assert (ended.interrupted, ended.file_count, ended.gone_count, ended.gone_byte_count) == (True, 0, 2, 12)
        assert (await parts.bench.log.run(RUN)).sync_status is SyncStatus.CLEANED


async def test_nothing_more_goes_once_the_log_can_not_be_asked_and_what_went_is_recorded(tmp_path: Path) -> None:
    async with engine_parts(tmp_path, RULES, portion_files=1) as parts:
        await proven(parts)
        log, known, portions, asked = parts.bench.log, parts.bench.log.run, 0, 0

        async def twice_away(run: str, *, upto_position: int | None = None) -> RunRecord:
            # Asked whether the next file may go, and to record the end.
            nonlocal asked
            asked += 1
            if asked <= 2:
                raise LogUnavailableError("no connection")
            return await known(run, upto_position=upto_position)

        async def second_portion() -> None:
            nonlocal portions
            portions += 1
            if portions == 2:
                # Something was appended, and nobody can read what.
                await parts.revoke_an_override()
                log.run = twice_away  # type: ignore[method-assign]

        parts.before_each_deletion(second_portion)
        done = await parts.clean()
        assert (done.cleaned, done.file_count) == (False, 1)
        assert [(left.path, left.why) for left in done.remaining] == [
            (b"b.tif", "the log can't be asked any more: no connection")
        ]
        assert data_files(parts.here) == {"b.tif"}
        (ended,) = await how_it_ended(parts)
        assert (ended.file_count, ended.remaining_count, ended.interrupted) == (1, 1, False)
