"""A reading that can't check is no pass, and holds up nothing else: neither other files nor the storage (SPEC §4)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from structlog.testing import capture_logs

from labferry.events.v1 import job_events_pb2 as events
from libs.event_log.projection import ProjectionRunner
from services.sync_engine.audits import portions
from services.sync_engine.audits.auditor import Auditor, PassRules
from services.sync_engine.audits.read_model import CopiesProjection
from services.sync_engine.audits.reading import CopyReading
from services.sync_engine.event_types import EVENT_TYPES, job_stream
from services.sync_engine.jobs.file_list import read_copied
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.read_model import JobsProjection
from services.sync_engine.jobs.work_in_hand import WorkInHand
from services.sync_engine.runs.read_model import RunsProjection
from services.sync_engine.transfer.bandwidth import UNLIMITED, BandwidthBrake
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import CopiedFile, FailureKind, TransferError, Transport, VerifyOutcome
from tests.faults.sync_engine.engine_parts import RUN, STALL_SECONDS, TEST, Parts, engine_parts
from tests.integration.sync_engine.running_engine import creation_document

EQUIPMENT = "CONFOCAL_01"
ANOTHER = RUN.replace("14-32", "15-00")
ALWAYS = PassRules(passes=1, interval=timedelta(hours=1000), scrub_interval=timedelta(microseconds=1))


class Unreadable:
    """A transport whose `verify` can't check a reading that holds one of these files; it says why by `error`."""

    def __init__(self, real: Transport) -> None:
        self._real = real
        self.files: frozenset[bytes] = frozenset()
        self.error: Exception = TransferError(
            FailureKind.CONFIGURATION, "reading back at the destination: Permission denied"
        )

    def verify(self, target: PurePosixPath, expected: Sequence[CopiedFile], **how: Any) -> VerifyOutcome:
        if self.files & {file.path for file in expected}:
            raise self.error
        return self._real.verify(target, expected, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@dataclass
class Audited:
    """A proven copy of three files, its storage, and what reads it again."""

    parts: Parts
    place: Destination
    storage: Unreadable
    reading: CopyReading
    auditor: Auditor
    projections: ProjectionRunner

    async def job(self) -> Job:
        (job,) = await self.parts.bench.jobs_of_run(RUN)
        return job

    async def scrub(self) -> bool:
        return await self.reading.scrub(await self.job(), self.place, TransferControl())

    async def bring_another(self) -> None:
        """A run whose one file is `another.tif`."""
        parts, folder = self.parts, self.parts.folder / "lab" / ANOTHER
        (folder / ".exlab-wizard").mkdir(parents=True)
        (folder / ".exlab-wizard" / "creation.json").write_text(json.dumps(creation_document()), encoding="utf-8")
        (folder / "another.tif").write_bytes(b"another")
        await parts.enqueue.run(ANOTHER, TEST, None)
        for job in await parts.bench.jobs_of_run(ANOTHER):
            await parts.step(job.job_id)

    async def until_readings(self, count: int, run: str = RUN) -> None:
        async with asyncio.timeout(30):
            while len(await self.readings(run)) < count:
                await self.projections.query(lambda c: None)

    async def readings(self, run: str = RUN) -> list[Any]:
        """Since the copy was verified."""
        (job,) = await self.parts.bench.jobs_of_run(run)
        stream = await self.parts.bench.log.store.read_stream(job_stream(job.job_id))
        found = [EVENT_TYPES.decode(event) for event in stream]
        return [e for e in found if isinstance(e, events.JobFilesScrubbed | events.JobVerificationFailed)]


@asynccontextmanager
async def audited(folder: Path) -> AsyncIterator[Audited]:
    async with engine_parts(folder) as parts:
        for name in ("a.tif", "b.tif", "c.tif"):
            (parts.here / name).write_bytes(name.encode())
        await parts.bring()
        (place,) = parts.bench.destinations[EQUIPMENT]
        storage = Unreadable(place.transport)
        place = replace(place, transport=storage)
        bench = replace(parts.bench, destinations={EQUIPMENT: [place]})
        brakes = {(EQUIPMENT, place.name): BandwidthBrake(UNLIMITED)}
        reading = CopyReading(bench, WorkInHand(parts.threads, STALL_SECONDS), brakes)
        models = (JobsProjection(), RunsProjection(), CopiesProjection())
        projections = ProjectionRunner(bench.log.store, EVENT_TYPES, folder / "read_models.sqlite3", models)
        await projections.start()
        auditor = Auditor(bench, projections, reading, ALWAYS, lambda equipment_id: True)
        projections.on_applied(auditor.applied)
        try:
            yield Audited(parts, place, storage, reading, auditor, projections)
        finally:
            await auditor.close()
            await projections.close()


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
