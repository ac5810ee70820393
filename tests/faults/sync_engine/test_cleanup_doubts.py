"""A copy that is found not to match while the local files go: no further one goes, and nothing is called cleaned."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from labferry.events.v1 import job_events_pb2
from libs.run_tree.creation_record import SyncStatus
from services.sync_engine.cleanup.interlocks import CleanupRules
from services.sync_engine.cleanup.set_aside import path_set_aside
from services.sync_engine.cleanup.ticket import Limits
from services.sync_engine.engine_log import job_change
from services.sync_engine.jobs.job import Job, JobState
from tests.faults.sync_engine.engine_parts import RUN, TEST, Parts, engine_parts

FILES = 250
RULES = CleanupRules(True, 2, timedelta(hours=24), True, Limits(1000, 1 << 30))


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with engine_parts(tmp_path, RULES) as parts:
        for number in range(FILES):
            (parts.here / f"{number:03}.tif").write_bytes(b"pixels")
        await parts.bring()
        await parts.pass_over()
        parts.clock.now += timedelta(hours=25)
        yield parts


def _rot(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"PIXELS")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _here(parts: Parts) -> set[str]:
    return {p.name for p in parts.here.iterdir() if p.is_file()}


async def _job(parts: Parts) -> Job:
    return (await parts.bench.jobs_of_run(RUN))[-1]


async def _refused(parts: Parts) -> None:
    job = await _job(parts)
    assert (job.state, job.verify_passes) == (JobState.VERIFIED, 0)
    assert (await parts.bench.log.run(RUN)).sync_status is SyncStatus.SYNCED


async def test_a_failed_pass_between_two_portions_ends_the_deletion(parts: Parts) -> None:
    portions: list[int] = []

    async def rot_after_the_first() -> None:
        portions.append(1)
        if len(portions) == 2:
            _rot(parts.there / "200.tif")
            await parts.pass_over()

    parts.before_each_deletion(rot_after_the_first)
    answer = await parts.clean()
    assert (answer.cleaned, answer.file_count) == (False, 100)
    assert {r.why for r in answer.remaining} == {"the copy at default was found not to match meanwhile"}
    assert len(_here(parts)) == FILES - 100
    assert (parts.here / "200.tif").read_bytes() == b"pixels"
    await _refused(parts)


async def test_a_failed_pass_in_the_middle_of_a_portion_lets_no_further_name_go(parts: Parts) -> None:
    loop, unlink = asyncio.get_running_loop(), os.unlink

    def unlink_and_doubt(name: bytes, *, dir_fd: int | None = None) -> None:
        unlink(name, dir_fd=dir_fd)
        if path_set_aside(name, dict) == b"010.tif":
            asyncio.run_coroutine_threadsafe(_doubt(parts), loop).result()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "unlink", unlink_and_doubt)
        answer = await parts.clean()
    assert (answer.cleaned, answer.file_count) == (False, 11)
    assert len(_here(parts)) == FILES - 11
    await _refused(parts)


async def test_a_failed_pass_after_the_last_file_is_gone_calls_nothing_cleaned(parts: Parts) -> None:
    append = parts.bench.log.store.append
    doubted: list[int] = []

    async def doubt_and_append(appends, request=None, fence=None):  # type: ignore[no-untyped-def]
        if not doubted and any(e.type == "sync.run.cleanup_ended.v1" for a in appends for e in a.events):
            doubted.append(1)
            await _doubt(parts)
        return await append(appends, request, fence)

    parts.bench.log.store.append = doubt_and_append  # type: ignore[method-assign]
    answer = await parts.clean()
    assert doubted
    assert (answer.cleaned, answer.file_count, list(answer.remaining)) == (False, FILES, [])
    await _refused(parts)
    await parts.pass_over()
    await parts.pass_over()
    parts.clock.now += timedelta(hours=25)
    again = await parts.clean()
    assert (again.cleaned, again.file_count) == (True, 0)
    assert (await _job(parts)).state is JobState.CLEANED


async def _doubt(parts: Parts) -> None:
    """A pass over the copy failed."""
    failed = job_events_pb2.JobVerificationFailed(occasion="request")
    await parts.bench.log.append(TEST, job_change(await _job(parts), failed))
