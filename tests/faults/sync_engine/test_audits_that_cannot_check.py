"""A reading that can't check is no pass, and holds up nothing else: neither other files nor the storage (SPEC §4)."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from labferry.events.v1 import job_events_pb2 as events
from services.sync_engine.audits import portions
from services.sync_engine.jobs.file_list import read_copied
from tests.faults.sync_engine.audited_copy import ANOTHER, EQUIPMENT, audited


async def test_a_portion_that_could_not_be_checked_has_had_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portions, "MOST_FILES", 1)
    async with audited(tmp_path) as copy:
        copy.storage.files = frozenset({b"a.tif"})
        assert [await copy.scrub() for _ in range(4)] == [False, True, True, False]
        first, *others, last = await copy.readings()
        assert [type(e) for e in others] == [events.JobFilesScrubbed, events.JobFilesScrubbed]
        for failed in (first, last):
            assert failed.report.note == "configuration: reading back at the destination: Permission denied"
            tried = read_copied(copy.parts.bench.blobs, failed.unproven_blob)
            assert ([file.path for file in tried], failed.evidence_blob) == ([b"a.tif"], "")
        assert (await copy.job()).verify_passes == 0


async def test_a_storage_that_cannot_be_read_is_left_alone_until_it_answers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portions, "MOST_FILES", 1)
    async with audited(tmp_path) as copy:
        copy.storage.files = frozenset({b"a.tif", b"b.tif", b"c.tif"})
        copy.auditor.start()
        for known in (3, 6):
            await copy.until_readings(known)
            for _ in range(50):
                copy.auditor.busy(EQUIPMENT, False)
                await copy.projections.query(lambda c: None)
            assert len(await copy.readings()) == known
            copy.auditor.destination_back(EQUIPMENT, copy.place.name)


async def test_a_lost_list_of_what_was_read_is_told_and_the_scrub_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portions, "MOST_FILES", 1)
    async with audited(tmp_path) as copy:
        await copy.scrub()
        (scrubbed,) = await copy.readings()
        copy.parts.bench.blobs.checked_path_sync(scrubbed.evidence_blob).unlink()
        copy.auditor.start()
        await copy.until_readings(4)
        _, failed, *others = await copy.readings()
        assert scrubbed.evidence_blob in failed.report.note
        assert {type(e) for e in others} == {events.JobFilesScrubbed}


async def test_a_copy_whose_reading_meets_a_defect_is_told_and_holds_up_no_other(tmp_path: Path) -> None:
    async with audited(tmp_path) as copy:
        copy.storage.files, copy.storage.error = frozenset({b"a.tif"}), RuntimeError("a defect")
        with capture_logs() as lines:
            copy.auditor.start()
            await copy.until_readings(1)
            await copy.bring_another()
            await copy.until_readings(3, ANOTHER)
        told = [line for line in lines if line["event"] == "audit_defect"]
        assert {line["job"] for line in told} == {(await copy.job()).job_id}
        assert {failed.report.note for failed in await copy.readings()} == {
            f"internal error {line['error_id']}; the service's log has the details" for line in told
        }
        assert (await copy.job()).verify_passes == 0


async def test_a_lost_list_of_files_is_told_and_holds_up_no_other(tmp_path: Path) -> None:
    async with audited(tmp_path) as copy:
        await copy.bring_another()
        files = (await copy.job()).files_blob or ""
        copy.parts.bench.blobs.checked_path_sync(files).unlink()
        copy.auditor.start()
        await copy.until_readings(1)
        await copy.until_readings(3, ANOTHER)
        assert all(files in failed.report.note for failed in await copy.readings())
