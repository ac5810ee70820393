"""Each interlock alone holds the deletion back, is named, and nothing is deleted; what stays behind is reported."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from libs.run_tree.creation_record import SyncStatus
from services.sync_engine.cleanup import cache_folder
from services.sync_engine.cleanup.clean_run import Cleaned
from services.sync_engine.cleanup.deletion import Deleted, delete_files
from services.sync_engine.cleanup.interlocks import CleanupRules
from services.sync_engine.cleanup.ticket import Limits
from services.sync_engine.event_types import run_stream
from services.sync_engine.jobs.job import Job, JobState
from services.sync_engine.transfer.transport import CopiedFile
from services.sync_engine.validation.finding import Rule
from tests.faults.sync_engine.engine_parts import RUN, TEST, Parts, engine_parts
from tests.integration.run_tree.test_mounts_below import mounted

LIMITS = Limits(1000, 1 << 30)
_COSTLY = {"fresh_read_back", "local_files_unchanged", "writers_visible", "copy_is_elsewhere"}
RULES = CleanupRules(True, 2, timedelta(hours=24), True, LIMITS)


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with engine_parts(tmp_path, RULES) as parts:
        yield parts


async def _two_passes(parts: Parts) -> None:
    for name in ("a.tif", "sub/b.csv", "sub/c.bin"):
        (parts.here / name).parent.mkdir(exist_ok=True)
        (parts.here / name).write_bytes(name.encode())
    await parts.bring()
    await parts.pass_over()


async def _ready(parts: Parts) -> None:
    await _two_passes(parts)
    parts.clock.now += timedelta(hours=25)


def _lacking(answer: Cleaned) -> set[str]:
    return {i.name.value for i in answer.interlocks if not i.satisfied}


def _here(parts: Parts) -> set[str]:
    files = {str(p.relative_to(parts.here)) for p in parts.here.rglob("*") if p.is_file() or p.is_symlink()}
    return {name for name in files if not name.startswith(".exlab-wizard")}


async def _job(parts: Parts) -> Job:
    return (await parts.bench.jobs_of_run(RUN))[-1]


async def _held(parts: Parts, *names: str) -> Cleaned:
    """Cleaning is refused for these reasons, and the job's state says so."""
    before = _here(parts)
    answer = await parts.clean()
    assert not answer.cleaned
    assert answer.file_count == 0
    assert _lacking(answer) - _COSTLY | set(names) == set(names)
    assert _lacking(answer) >= set(names)
    assert _here(parts) == before
    hold = (await _job(parts)).cleanup_hold
    assert hold is not None
    assert hold.detail.startswith(", ".join(names) + ": ")
    types = [e.type for e in await parts.bench.log.store.read_stream(run_stream(RUN))]
    assert "sync.run.cleanup_begun.v1" not in types
    return answer


async def test_everything_holds_and_the_files_go(parts: Parts) -> None:
    await _ready(parts)
    answer = await parts.clean()
    assert _lacking(answer) == set()
    assert (answer.cleaned, answer.file_count, answer.byte_count) == (True, 3, 23)
    assert _here(parts) == set()
    assert (parts.here / ".exlab-wizard/creation.json").exists()
    assert (await _job(parts)).state is JobState.CLEANED
    assert (await parts.bench.log.run(RUN)).sync_status is SyncStatus.CLEANED
    again = await parts.clean()
    assert (again.cleaned, again.file_count) == (True, 0)


async def test_too_young(parts: Parts) -> None:
    await _two_passes(parts)
    held = await _held(parts, "age")
    assert {i.name.value for i in held.interlocks if not i.asked} == _COSTLY
    parts.clock.now += timedelta(hours=23, minutes=59)
    await _held(parts, "age")


async def test_a_clock_that_was_set_back_makes_nothing_old_enough(parts: Parts) -> None:
    await _two_passes(parts)
    parts.clock.now -= timedelta(hours=72)
    held = await _held(parts, "age")
    (age,) = (i.detail for i in held.interlocks if i.name == "age")
    assert "which lies 3 days ahead of this machine's clock; 24 h are wanted since then: put the clock right" in age


async def test_one_pass_is_not_two_and_the_reading_before_a_deletion_is_none(parts: Parts) -> None:
    (parts.here / "a.tif").write_bytes(b"pixels")
    await parts.bring()
    parts.clock.now += timedelta(hours=25)
    await _held(parts, "verify_passes", "age")


async def test_a_changed_file(parts: Parts) -> None:
    await _ready(parts)
    (parts.here / "a.tif").write_bytes(b"A.TIF")
    answer = await _held(parts, "local_files_unchanged")
    assert any("a.tif changed" in i.detail for i in answer.interlocks)


async def test_a_file_whose_time_was_put_back_but_not_its_content(parts: Parts) -> None:
    await _ready(parts)
    path = parts.here / "a.tif"
    before = path.stat()
    path.write_bytes(b"A.TIF")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    await _held(parts, "local_files_unchanged")


async def test_a_touched_file_is_not_as_it_was_verified(parts: Parts) -> None:
    await _ready(parts)
    path = parts.here / "a.tif"
    os.utime(path, ns=(0, 1_600_000_000_123_456_789))
    answer = await _held(parts, "local_files_unchanged")
    (said,) = [i.detail for i in answer.interlocks if i.name == "local_files_unchanged"]
    verified = re.search(r"a\.tif has another time than was verified, 2020-09-13T12:26:40\.123456789Z for (\S+)$", said)
    assert verified is not None
    subprocess.run(["touch", "-d", verified[1], str(path)], check=True)
    assert (await parts.clean()).cleaned


async def test_a_file_that_appeared_later(parts: Parts) -> None:
    await _ready(parts)
    (parts.here / "late.tif").write_bytes(b"late")
    answer = await _held(parts, "local_files_unchanged")
    assert any("late.tif was never verified" in i.detail for i in answer.interlocks)


async def test_a_revoked_override_until_the_next_pass(parts: Parts) -> None:
    await _ready(parts)
    await parts.revoke_an_override()
    await parts.seal_anew()
    await _held(parts, "no_recent_tombstone")
    await parts.pass_over()
    assert (await parts.clean()).cleaned


async def test_an_override_until_the_copy_has_it(parts: Parts) -> None:
    await _ready(parts)
    await parts.overrides.record(RUN, Rule.LEFTOVER_JINJA_MARKER, "asmith", "meant", None, TEST, None)
    held = await _held(parts, "sealed")
    (said,) = (i.detail for i in held.interlocks if i.name == "sealed")
    assert said == "not sealed with the run's present status and overrides: default"
    await parts.seal_anew()
    assert (await parts.clean()).cleaned
    creation = (parts.there / ".exlab-wizard/creation.json").read_text(encoding="utf-8")
    assert '"operator":"asmith"' in creation


async def test_a_revocation_while_the_clock_was_set_back(parts: Parts) -> None:
    await _ready(parts)
    now = parts.clock.now
    parts.clock.now -= timedelta(days=400)
    await parts.revoke_an_override()
    parts.clock.now = now
    await parts.seal_anew()
    await _held(parts, "no_recent_tombstone")


async def test_a_closed_gate(parts: Parts) -> None:
    await _ready(parts)
    (parts.here / "tile {{ x }}").mkdir()
    await _held(parts, "gate_open")


async def test_a_destination_that_does_not_answer(parts: Parts) -> None:
    await _ready(parts)
    (parts.folder / "nas").rename(parts.folder / "away")
    await _held(parts, "destinations_answer")


async def test_a_copy_that_rotted(parts: Parts) -> None:
    await _ready(parts)
    path = parts.there / "sub/c.bin"
    before = path.stat()
    path.write_bytes(b"SUB/c.bin")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    answer = await parts.clean()
    assert "fresh_read_back" in _lacking(answer)
    assert len(_here(parts)) == 3
    job = await _job(parts)
    assert (job.verify_passes, job.passes) == (0, ())
    assert job.failure is not None
    assert job.failure.paths == ("sub/c.bin",)


async def test_more_than_the_limits(tmp_path: Path) -> None:
    for name, limits in (("files", Limits(2, 1 << 30)), ("bytes", Limits(1000, 22))):
        async with engine_parts(tmp_path / name, CleanupRules(True, 2, timedelta(0), True, limits)) as parts:
            await _ready(parts)
            answer = await _held(parts, "within_limits")
            assert any(f"nas_cleanup.max_{name}" in i.detail for i in answer.interlocks)


async def test_what_happens_to_a_file_after_the_ticket_stays_and_is_reported(parts: Parts) -> None:
    for number in range(40):
        (parts.here / f"{number}.tif").write_bytes(b"pixels")
    await _ready(parts)

    def meddle() -> None:
        (parts.here / "a.tif").write_bytes(b"A.TIF")
        (parts.here / "sub/late.tif").write_bytes(b"late")

    _after_ticket(parts, meddle)
    answer = await parts.clean()
    assert (answer.cleaned, answer.file_count) == (False, 42)
    assert {os.fsdecode(r.path): r.why for r in answer.remaining} == {
        "a.tif": "its size, time or inode is not what was verified",
        "sub/late.tif": "it appeared later",
    }
    assert _here(parts) == {"a.tif", "sub/late.tif"}
    job = await _job(parts)
    assert job.state is JobState.VERIFIED
    assert job.cleanup_hold is not None
    assert "still here: a.tif" in job.cleanup_hold.detail
    assert (await parts.bench.log.run(RUN)).sync_status is SyncStatus.SYNCED
    # Files that cleanup deleted are no change: only the ones that were meddled with are one.
    os.unlink(parts.here / "a.tif")
    assert (await parts.enqueue.run(RUN, TEST, None)).outcome == "queued"


async def test_everything_stays_when_too_many_files_are_not_what_the_ticket_says(parts: Parts) -> None:
    for number in range(37):
        (parts.here / f"{number}.tif").write_bytes(b"pixels")
    await _ready(parts)
    before = _here(parts)

    def meddle() -> None:
        for number in range(3):
            (parts.here / f"{number}.tif").write_bytes(b"PIXELS")

    _after_ticket(parts, meddle)
    answer = await parts.clean()
    assert (answer.cleaned, answer.file_count) == (False, 0)
    assert _here(parts) == before
    whys = Counter(r.why for r in answer.remaining)
    assert whys["its size, time or inode is not what was verified"] == 3
    assert whys["too many files are not what the ticket says"] == 37


async def test_what_is_mounted_in_the_run_holds_it(parts: Parts) -> None:
    await _ready(parts)
    with mounted(parts.there / "sub", parts.here / "sub"):
        answer = await _held(parts, "copy_is_elsewhere")
    assert any("something is mounted in the run, at sub" in i.detail for i in answer.interlocks)


async def test_a_copy_of_which_a_part_is_the_run_itself_is_no_copy(parts: Parts) -> None:
    await _ready(parts)
    for file in (parts.there / "sub").iterdir():
        file.unlink()
    with mounted(parts.here / "sub", parts.there / "sub"):
        answer = await parts.clean()
    assert "fresh_read_back" in _lacking(answer)
    assert len(_here(parts)) == 3
    failure = (await _job(parts)).failure
    assert failure is not None
    assert "at sub: what lies there is not in this copy" in failure.message


async def test_a_deletion_ends_when_something_happens_to_the_run(parts: Parts) -> None:
    for number in range(250):
        (parts.here / f"{number:03}.tif").write_bytes(b"pixels")
    await _ready(parts)
    delete = parts.bench.threads.run
    begun = []

    async def delete_and_revoke(work):  # type: ignore[no-untyped-def]
        done = await delete(work)
        if getattr(getattr(work, "func", None), "__name__", "") == "delete_files" and not begun:
            begun.append(work)
            await parts.revoke_an_override()
        return done

    parts.bench.threads.run = delete_and_revoke  # type: ignore[method-assign]
    answer = await parts.clean()
    assert not answer.cleaned
    assert answer.file_count == 100
    assert {r.why for r in answer.remaining} == {"something happened to the run meanwhile"}
    assert len(_here(parts)) == 153


async def test_the_cache_folder_goes_last_when_it_is_not_retained(tmp_path: Path) -> None:
    async with engine_parts(tmp_path, CleanupRules(True, 2, timedelta(0), False, LIMITS)) as parts:
        await _ready(parts)
        extra = parts.here / ".exlab-wizard/wizard.elsewhere.log"
        extra.write_text("written after the seal\n", encoding="utf-8")
        answer = await parts.clean()
        assert answer.cleaned, answer
        assert list(parts.here.iterdir()) == []
        assert (parts.there / ".exlab-wizard/wizard.elsewhere.log").read_text() == "written after the seal\n"
        assert (await parts.bench.log.run(RUN)).sync_status is SyncStatus.CLEANED


async def test_what_is_written_while_the_cache_folder_goes_is_brought_and_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_parts(tmp_path, CleanupRules(True, 2, timedelta(0), False, LIMITS)) as parts:
        await _ready(parts)
        late = parts.here / ".exlab-wizard/wizard.elsewhere.log"
        portions: list[int] = []

        def delete_and_write(
            run_folder: Path, files: Sequence[CopiedFile], may: Callable[[], bool], *, without_lease: bool
        ) -> Deleted:
            deleted = delete_files(run_folder, files, may, without_lease=without_lease)
            portions.append(len(files))
            if len(portions) == 1:
                late.write_text("a line that came late\n", encoding="utf-8")
            return deleted

        monkeypatch.setattr(cache_folder, "delete_files", delete_and_write)
        answer = await parts.clean()
        assert answer.cleaned, answer
        assert list(parts.here.iterdir()) == []
        assert (parts.there / ".exlab-wizard/wizard.elsewhere.log").read_text() == "a line that came late\n"
        assert (parts.there / ".exlab-wizard/creation.json").is_file()


async def test_a_cache_file_that_no_destination_holds_stays(tmp_path: Path) -> None:
    async with engine_parts(tmp_path, CleanupRules(True, 2, timedelta(0), False, LIMITS)) as parts:
        await _ready(parts)
        half = parts.here / ".exlab-wizard/creation.json.0123.tmp"
        half.write_text("half", encoding="utf-8")
        answer = await parts.clean()
        assert not answer.cleaned
        assert [(r.path, r.why) for r in answer.remaining] == [
            (b".exlab-wizard/creation.json.0123.tmp", "no destination holds it")
        ]
        half.unlink()
        assert (await parts.clean()).cleaned


def _after_ticket(parts: Parts, meddle: Callable[[], None]) -> None:
    """Does something the moment the ticket stands in the log."""
    append = parts.bench.log.store.append

    async def append_and_meddle(appends, request=None, fence=None):  # type: ignore[no-untyped-def]
        result = await append(appends, request, fence)
        if any(e.type == "sync.run.cleanup_begun.v1" for e in result.events):
            meddle()
        return result

    parts.bench.log.store.append = append_and_meddle  # type: ignore[method-assign]
