"""A file that is wrong twice is put aside; three of them put the destination under suspicion until it is trusted."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.sync_engine.errors import DestinationNotFoundError
from services.sync_engine.event_types import destination_stream
from services.sync_engine.jobs.job import Job, JobState, WaitCondition
from services.sync_engine.transfer.transport import CopiedFile, FailureKind, TransferError
from tests.faults.sync_engine.engine_parts import RUN, TEST, Parts, engine_parts

EQUIPMENT, NAME = "CONFOCAL_01", "default"


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with engine_parts(tmp_path) as parts:
        yield parts


def _corrupting(parts: Parts, wrong: Callable[[], None]) -> None:
    """Something happens between each copy and its reading back, as with a storage that writes badly."""
    transport: Any = parts.bench.destinations[EQUIPMENT][0].transport
    copy = transport.copy

    def copy_badly(*arguments: Any, **fields: Any) -> Sequence[CopiedFile]:
        copied: Sequence[CopiedFile] = copy(*arguments, **fields)
        wrong()
        return copied

    transport.copy = copy_badly


def _flip(path: Path) -> None:
    before = path.stat()
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


async def _job(parts: Parts) -> Job:
    return (await parts.bench.jobs_of_run(RUN))[-1]


async def test_three_files_that_are_wrong_twice_put_the_target_under_suspicion(parts: Parts) -> None:
    for name in ("a", "b", "c", "good"):
        (parts.here / name).write_bytes(name.encode() * 100)
    bad = ["a", "b"]
    _corrupting(parts, lambda: [_flip(parts.there / name) for name in bad])  # type: ignore[arg-type,return-value]
    await parts.bring()
    job = await _job(parts)
    assert (job.state, job.attempt) == (JobState.FAILED, 2)
    assert job.failure is not None
    assert (job.failure.kind, job.failure.paths) == (FailureKind.HASH_MISMATCH, ("a", "b"))
    await parts.targets.look(job.job_id)
    await parts.targets.look(job.job_id)
    target = parts.targets.target(EQUIPMENT, NAME)
    assert target.doubted == (f"{RUN}/a", f"{RUN}/b")
    assert not target.is_suspected
    assert not (parts.there / "a").exists(), "what was wrong twice lies nowhere under its name"
    bad[:] = ["c"]
    await parts.bring()
    await parts.targets.look(job.job_id)
    assert "under suspicion" in parts.targets.why_suspected(EQUIPMENT, NAME)
    bad.clear()
    await parts.bring()
    held = await _job(parts)
    assert held.wait is not None
    assert (held.state, held.wait.condition) == (JobState.QUEUED, WaitCondition.OPERATOR)
    assert "under suspicion" in held.wait.detail
    await parts.targets.trust(EQUIPMENT, NAME, TEST)
    await parts.step(job.job_id)
    assert (await _job(parts)).sealed
    types = [e.type for e in await parts.bench.log.store.read_stream(destination_stream(EQUIPMENT, NAME))]
    assert types == [
        "sync.destination.probed.v1",
        *["sync.destination.doubted.v1"] * 2,
        "sync.destination.trusted.v1",
    ]
    with pytest.raises(DestinationNotFoundError):
        await parts.targets.trust(EQUIPMENT, "moon", TEST)


async def test_a_trusted_target_is_not_doubted_for_what_failed_before(parts: Parts) -> None:
    (parts.here / "a").write_bytes(b"pixels")
    _corrupting(parts, lambda: _flip(parts.there / "a"))
    await parts.bring()
    job = await _job(parts)
    await parts.targets.look(job.job_id)
    assert parts.targets.target(EQUIPMENT, NAME).doubted == (f"{RUN}/a",)
    await parts.targets.trust(EQUIPMENT, NAME, TEST)
    assert job.state is JobState.FAILED
    await parts.targets.look(job.job_id)
    assert parts.targets.target(EQUIPMENT, NAME).doubted == (), "an engine looks at failed jobs when it starts"


async def test_a_file_that_is_wrong_once_is_sent_again_and_casts_no_doubt(parts: Parts) -> None:
    (parts.here / "a").write_bytes(b"pixels")
    wrong = [1]
    _corrupting(parts, lambda: _flip(parts.there / "a") if wrong.pop() else None)
    wrong.insert(0, 0)
    await parts.bring()
    job = await _job(parts)
    assert (job.sealed, job.attempt) == (True, 2)
    await parts.targets.look(job.job_id)
    assert parts.targets.target(EQUIPMENT, NAME).doubted == ()
    assert parts.targets.target(EQUIPMENT, NAME).probe is not None


async def test_what_a_verification_named_is_all_that_is_read_once_more_before_it_is_sent_again(parts: Parts) -> None:
    for name in "abcdefgh":
        (parts.here / name).write_bytes(name.encode() * 100)
    wrong = [1]
    _corrupting(parts, lambda: _flip(parts.there / "a") if wrong else None)
    transport: Any = parts.bench.destinations[EQUIPMENT][0].transport
    verify, readings = transport.verify, []

    def counting(target: Any, expected: Any, **fields: Any) -> Any:
        readings.append(len(expected))
        wrong.clear()
        return verify(target, expected, **fields)

    transport.verify = counting
    await parts.bring()
    job = await _job(parts)
    assert (job.sealed, job.attempt, readings) == (True, 2, [8, 4, 8])
    assert (parts.there / "a").read_bytes() == b"a" * 100
    kept = parts.folder / "nas" / ".labferry-superseded"
    assert [file.name for file in kept.rglob("*") if file.is_file()] == ["a"]


async def test_what_could_not_be_set_aside_is_set_aside_by_the_next_attempt(parts: Parts) -> None:
    (parts.here / "a").write_bytes(b"pixels")
    wrong = [1]
    _corrupting(parts, lambda: _flip(parts.there / "a") if wrong else None)
    transport: Any = parts.bench.destinations[EQUIPMENT][0].transport
    aside = transport.set_aside

    def breaks_off(*arguments: Any, **fields: Any) -> None:
        wrong.clear()
        transport.set_aside = aside
        raise TransferError(FailureKind.NETWORK, "setting aside: Input/output error")

    transport.set_aside = breaks_off
    await parts.bring()
    job = await _job(parts)
    assert (job.state, job.attempt) == (JobState.QUEUED, 2)
    parts.clock.now += timedelta(minutes=1)
    await parts.step(job.job_id)
    job = await _job(parts)
    assert (job.sealed, job.attempt) == (True, 3)
    assert (parts.there / "a").read_bytes() == b"pixels"


async def test_a_source_that_changed_silently_is_no_fault_of_the_destination(parts: Parts) -> None:
    (parts.here / "a").write_bytes(b"pixels")
    wrong = [1]

    def both_change() -> None:
        if wrong:
            wrong.clear()
            _flip(parts.there / "a")
            _flip(parts.here / "a")

    verify: Any = parts.bench.destinations[EQUIPMENT][0].transport
    read_back = verify.verify

    def verify_after(*arguments: Any, **fields: Any) -> Any:
        both_change()
        return read_back(*arguments, **fields)

    verify.verify = verify_after
    await parts.bring()
    job = await _job(parts)
    assert job.wait is not None
    assert job.wait.condition is WaitCondition.SOURCE_UNSETTLED
    assert job.failure is not None
    assert (job.failure.kind, job.failure.paths) == (FailureKind.SOURCE_CHANGED, ("a",))
    await parts.step(job.job_id)
    assert (await _job(parts)).sealed
    assert (parts.there / "a").read_bytes() == (parts.here / "a").read_bytes()
