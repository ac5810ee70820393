"""A run whose copies take hours to be read is cleaned too, and no file of it goes on evidence older than an hour."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from labferry.events.v1 import run_events_pb2
from services.sync_engine.audits import portions
from services.sync_engine.cleanup.interlocks import CleanupRules
from services.sync_engine.cleanup.ticket import Limits
from services.sync_engine.event_types import EVENT_TYPES, run_stream
from services.sync_engine.jobs.file_list import read_evidence
from services.sync_engine.jobs.job import Job, JobState
from services.sync_engine.transfer.transport import CopiedFile, VerifyOutcome
from tests.faults.sync_engine.engine_parts import RUN, Parts, engine_parts
from tests.integration.sync_engine.test_copy_is_source import leading_to

RULES = CleanupRules(True, 1, timedelta(0), True, Limits(1000, 1 << 40))
NAMES = [f"{number}.tif" for number in range(6)]
PORTION_SECONDS = 40 * 60.0
HOUR = 3600.0


class _SlowReading:
    """Each portion that is read back takes forty minutes, on the clock that nobody can set."""

    def __init__(self, parts: Parts) -> None:
        self.read_at: dict[str, float] = {}
        transport = parts.bench.destinations["CONFOCAL_01"][0].transport
        verify = transport.verify

        def slowly(target: bytes, files: list[CopiedFile], **fields: Any) -> VerifyOutcome:
            outcome = verify(target, files, **fields)
            if len(files) > 1:
                self.read_at |= {file.path.decode(): parts.clock.monotonic() for file in files}
            parts.clock.passed += PORTION_SECONDS
            if len(files) == 1:
                self.read_at[files[0].path.decode()] = parts.clock.monotonic()
            return outcome

        transport.verify = slowly  # type: ignore[assignment,method-assign]


@pytest.fixture(params=[1, 2], ids=["large files", "small files"])
async def parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Parts]:
    monkeypatch.setattr(portions, "MOST_FILES", request.param)
    async with engine_parts(tmp_path, RULES, portion_files=request.param) as parts:
        for name in NAMES:
            (parts.here / name).write_bytes(name.encode())
        await parts.bring()
        yield parts


def _here(parts: Parts) -> list[str]:
    return sorted(p.name for p in parts.here.iterdir() if p.is_file())


async def _job(parts: Parts) -> Job:
    return (await parts.bench.jobs_of_run(RUN))[-1]


async def _ended(parts: Parts) -> run_events_pb2.RunCleanupEnded:
    decoded = [EVENT_TYPES.decode(e) for e in await parts.bench.log.store.read_stream(run_stream(RUN))]
    (ended,) = [payload for payload in decoded if isinstance(payload, run_events_pb2.RunCleanupEnded)]
    return ended


async def test_hours_of_reading(parts: Parts) -> None:
    slow, ages = _SlowReading(parts), []
    before: set[str] = set()
    known: dict[str, float] = {}

    async def look() -> None:
        nonlocal before, known
        # Of what went since the last look, how old its evidence was then.
        left = set(_here(parts))
        ages.extend(known[name] for name in before - left)
        before, known = left, {name: parts.clock.monotonic() - slow.read_at[name] for name in left}

    parts.before_each_deletion(look)
    answer = await parts.clean()
    await look()
    assert (answer.cleaned, answer.file_count, _here(parts)) == (True, len(NAMES), [])
    assert len(ages) == len(NAMES)
    assert max(ages) < HOUR
    ended = await _ended(parts)
    events = [e async for page in parts.bench.log.store.read() for e in page]
    allowed: dict[str, str] = {}
    for evidence in ended.evidence:
        payload: Any = EVENT_TYPES.decode(events[evidence.position - 1])
        lines = read_evidence(parts.bench.blobs, payload.evidence_blob)
        allowed |= {line.path.decode(): line.sha256 for line in lines}
    assert set(allowed) == set(NAMES)
    assert len(ended.evidence) > 1


async def test_what_rotted_since_the_whole_reading_is_found_before_its_turn(parts: Parts) -> None:
    _SlowReading(parts)
    begun: list[int] = []

    async def rot_once() -> None:
        if not begun:
            begun.append(1)
            (parts.there / NAMES[4]).write_bytes(b"x.tif")

    parts.before_each_deletion(rot_once)
    answer = await parts.clean()
    assert (answer.cleaned, answer.file_count) == (False, 4)
    assert _here(parts) == NAMES[4:]
    assert {r.why for r in answer.remaining} == {"the copy at default was found not to match meanwhile"}
    job = await _job(parts)
    assert (job.state, job.verify_passes) == (JobState.VERIFIED, 0)
    assert job.failure is not None
    assert job.failure.paths == (NAMES[4],)


async def test_the_other_interlocks_are_asked_again_before_a_reading(parts: Parts) -> None:
    _SlowReading(parts)
    portions_gone: list[int] = []

    async def vanish_before_the_third() -> None:
        portions_gone.append(1)
        if len(portions_gone) == 2:
            (parts.folder / "nas").rename(parts.folder / "away")

    parts.before_each_deletion(vanish_before_the_third)
    answer = await parts.clean()
    assert not answer.cleaned
    assert len(_here(parts)) == len(NAMES) - answer.file_count > 0
    assert all("not answering" in remaining.why for remaining in answer.remaining)
    assert (await _job(parts)).verify_passes == 1


async def test_a_copy_that_became_the_run_itself_meanwhile_allows_nothing_more(parts: Parts) -> None:
    _SlowReading(parts)
    portions_gone: list[int] = []
    with ExitStack() as mounts:

        async def become_before_the_second() -> None:
            portions_gone.append(1)
            if len(portions_gone) == 2:
                mounts.enter_context(leading_to(parts.here, parts.there))

        parts.before_each_deletion(become_before_the_second)
        answer = await parts.clean()
    assert not answer.cleaned
    assert len(_here(parts)) == len(NAMES) - answer.file_count > 0
    # Where mounting isn't permitted it is a symlink, which no destination answers through.
    said = ("is the run itself", "can't be marked", "found not to match")
    assert all(any(words in remaining.why for words in said) for remaining in answer.remaining)


async def test_reading_for_longer_than_evidence_is_good_for_ends_the_deletion(parts: Parts) -> None:
    slow = _SlowReading(parts)
    assert slow.read_at == {}
    transport = parts.bench.destinations["CONFOCAL_01"][0].transport
    verify = transport.verify

    def slower(*arguments: Any, **fields: Any) -> VerifyOutcome:
        outcome = verify(*arguments, **fields)
        parts.clock.passed += HOUR
        return outcome

    transport.verify = slower  # type: ignore[method-assign]
    answer = await parts.clean()
    if portions.MOST_FILES == 1:
        # What is alone is known when it was read to its end, however long that took.
        assert answer.cleaned
    else:
        assert (answer.cleaned, _here(parts)) == (False, NAMES)
