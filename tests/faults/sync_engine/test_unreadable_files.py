"""A file that its storage can't read differs; a storage that can't be read was not checked (SPEC §4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.sync_engine.jobs.file_list import read_evidence
from services.sync_engine.transfer import read_back
from services.sync_engine.validation.job_findings import findings_of_job
from tests.faults.sync_engine.audited_copy import audited_on_failing_disk

WORDS = "b.tif: Input/output error"


async def test_a_file_that_cannot_be_read_is_that_files_and_is_put_back(tmp_path: Path) -> None:
    async with audited_on_failing_disk(tmp_path) as (copy, disk):
        disk.spoil(copy.parts.there / "b.tif")
        assert await copy.scrub()
        (failed,) = await copy.readings()
        assert (list(failed.report.differing), list(failed.report.unreadable)) == (["b.tif"], [WORDS])
        proven = read_evidence(copy.parts.bench.blobs, failed.evidence_blob)
        assert [file.path for file in proven] == [b"a.tif", b"c.tif"]
        assert WORDS in findings_of_job(await copy.job())[0].rule_detail
        assert await copy.audit()
        assert (await copy.job()).verify_passes == 1
        assert (copy.parts.there / "b.tif").read_bytes() == b"b.tif"


async def test_a_storage_that_reads_nothing_any_more_was_not_checked(tmp_path: Path) -> None:
    async with audited_on_failing_disk(tmp_path) as (copy, disk):
        disk.die()
        assert not await copy.scrub()
        assert not await copy.audit()
        for failed in await copy.readings():
            assert "Input/output error" in failed.report.note
            assert (list(failed.report.differing), list(failed.report.missing)) == ([], [])
        assert (await copy.job()).verify_passes == 0


async def test_a_storage_of_which_no_file_can_be_read_was_not_checked_whatever_else_it_reads(tmp_path: Path) -> None:
    async with audited_on_failing_disk(tmp_path) as (copy, disk):
        disk.spoil(*(copy.parts.there / name for name in ("a.tif", "b.tif", "c.tif")))
        assert not await copy.scrub()
        (failed,) = await copy.readings()
        assert "Input/output error" in failed.report.note
        assert not failed.report.differing


async def test_files_that_cannot_be_read_one_after_the_other_are_a_dead_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with audited_on_failing_disk(tmp_path) as (copy, disk):
        disk.spoil(*(copy.parts.there / name for name in ("b.tif", "c.tif")))
        with monkeypatch.context() as fewer:
            fewer.setattr(read_back, "_MOST_IN_A_ROW", 1)
            assert not await copy.scrub()
        assert await copy.scrub()
        dead, damaged = await copy.readings()
        assert dead.report.note == "network: reading back c.tif at the destination: Input/output error"
        assert list(damaged.report.unreadable) == ["b.tif: Input/output error", "c.tif: Input/output error"]
