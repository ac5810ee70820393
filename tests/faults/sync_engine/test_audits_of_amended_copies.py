"""A copy whose amendment came to nothing is read again, and what was superseded there is no rot (SPEC §4)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from labferry.events.v1 import job_events_pb2 as events
from services.sync_engine.jobs.accept_change import Acceptance, AcceptChange
from services.sync_engine.jobs.job import Job, JobState
from services.sync_engine.runs.run import AcceptedChange
from services.sync_engine.transfer.transport import CopiedFile, FailureKind, TransferError
from tests.faults.sync_engine.audited_copy import Audited, audited
from tests.faults.sync_engine.engine_parts import RUN, TEST


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def _superseded_by_a_job_that_failed(copy: Audited, *names: str) -> Job:
    """The amendment sets the accepted files aside, and then can't give their replacements these names."""
    for name in names:
        old, new = name.encode(), b"new"
        (copy.parts.here / name).write_bytes(new)
        change = AcceptedChange("", name.encode(), _sha(old), _sha(new))
        await AcceptChange(copy.parts.bench).accept(Acceptance(RUN, change, "asmith"), TEST, None)

    (place,) = copy.parts.bench.destinations["CONFOCAL_01"]
    real: Any = place.transport.copy

    def fail(*run: Any, before_landing: Callable[[Sequence[CopiedFile]], None], **how: Any) -> None:
        def clear_and_fail(batch: Sequence[CopiedFile]) -> None:
            before_landing(batch)
            raise TransferError(FailureKind.CONFIGURATION, "writing at the destination: Permission denied")

        real(*run, before_landing=clear_and_fail, **how)

    place.transport.copy = fail  # type: ignore[method-assign, assignment]
    await copy.parts.bring()
    place.transport.copy = real  # type: ignore[method-assign]
    proven, failed = await copy.parts.bench.jobs_of_run(RUN)
    assert (proven.state, failed.state) == (JobState.VERIFIED, JobState.FAILED)
    assert not [name for name in names if (copy.parts.there / name).exists()]
    return failed


async def test_what_a_failed_amendment_superseded_is_no_rot_of_its_base(tmp_path: Path) -> None:
    async with audited(tmp_path) as copy:
        await _superseded_by_a_job_that_failed(copy, "a.tif")
        passes = (await copy.job()).verify_passes
        assert await copy.audit()
        assert await copy.scrub()
        assert (await copy.job()).verify_passes == passes + 1
        (scrubbed,) = await copy.readings()
        assert (type(scrubbed), scrubbed.file_count) == (events.JobFilesScrubbed, 2)
        for look in (copy.audit, copy.scrub):
            (copy.parts.there / "b.tif").write_bytes(b"rot")
            await look()
        *_, audited_then, scrubbed_then = await copy.readings()
        for found in (audited_then, scrubbed_then):
            assert [*found.report.differing, *found.report.missing] == ["b.tif"]
            assert found.report.note == "1 superseded by a later job, which is not verified"


async def test_what_a_cancelled_amendment_superseded_is_missed_and_put_back_once_the_run_holds_it_again(
    tmp_path: Path,
) -> None:
    async with audited(tmp_path) as copy:
        failed = await _superseded_by_a_job_that_failed(copy, "a.tif")
        await copy.parts.bench.append(failed, events.JobCancelled())
        await copy.audit()
        assert [list(found.report.missing) for found in await copy.readings()] == [["a.tif"]]
        assert not (copy.parts.there / "a.tif").exists()
        (copy.parts.here / "a.tif").write_bytes(b"a.tif")
        await copy.audit()
        assert (copy.parts.there / "a.tif").read_bytes() == b"a.tif"


async def test_a_copy_of_which_every_file_was_superseded_proves_nothing(tmp_path: Path) -> None:
    async with audited(tmp_path) as copy:
        await _superseded_by_a_job_that_failed(copy, "a.tif", "b.tif", "c.tif")
        await copy.audit()
        (failed,) = await copy.readings()
        assert (failed.report.expected, list(failed.report.missing)) == (0, [])
        assert failed.report.note == "3 superseded by a later job, which is not verified"
        assert (await copy.job()).verify_passes == 0
