"""A proven copy in the test's process, its storage, and what reads it again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from labferry.events.v1 import job_events_pb2 as events
from libs.event_log.projection import ProjectionRunner
from services.sync_engine.audits.auditor import Auditor, PassRules
from services.sync_engine.audits.first_seen import FirstSeen
from services.sync_engine.audits.read_model import CopiesProjection
from services.sync_engine.audits.reading import CopyReading
from services.sync_engine.event_types import EVENT_TYPES, job_stream
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.read_model import JobsProjection
from services.sync_engine.jobs.work_in_hand import WorkInHand
from services.sync_engine.runs.read_model import RunsProjection
from services.sync_engine.transfer.bandwidth import UNLIMITED, BandwidthBrake
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import CopiedFile, FailureKind, TransferError, Transport, VerifyOutcome
from tests.faults.sync_engine.engine_parts import RUN, STALL_SECONDS, TEST, Parts, engine_parts
from tests.faults.sync_engine.failing_disk import FailingDisk, failing_disk
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
    in_hand: WorkInHand

    async def job(self) -> Job:
        """The first one."""
        return (await self.parts.bench.jobs_of_run(RUN))[0]

    async def scrub(self) -> bool:
        return await self.reading.scrub(await self.job(), self.place, TransferControl())

    async def audit(self) -> bool:
        return await self.reading.audit(await self.job(), self.place, TransferControl(), lambda: True)

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

    async def until_passes(self, count: int) -> None:
        async with asyncio.timeout(30):
            while (await self.job()).verify_passes < count:
                await self.projections.query(lambda c: None)

    async def readings(self, run: str = RUN) -> list[Any]:
        """Since the copy was verified."""
        job = (await self.parts.bench.jobs_of_run(run))[0]
        stream = await self.parts.bench.log.store.read_stream(job_stream(job.job_id))
        found = [EVENT_TYPES.decode(event) for event in stream]
        return [e for e in found if isinstance(e, events.JobFilesScrubbed | events.JobVerificationFailed)]


@asynccontextmanager
async def audited(
    folder: Path, stall_seconds: float = STALL_SECONDS, rules: PassRules = ALWAYS
) -> AsyncIterator[Audited]:
    async with engine_parts(folder) as parts, _read_again(parts, stall_seconds, rules) as copy:
        yield copy


@asynccontextmanager
async def audited_on_failing_disk(folder: Path) -> AsyncIterator[tuple[Audited, FailingDisk]]:
    """The storage is a disk of its own."""
    async with engine_parts(folder) as parts:
        with failing_disk(folder / "nas") as disk:
            async with _read_again(parts) as copy:
                yield copy, disk


@asynccontextmanager
async def _read_again(
    parts: Parts, stall_seconds: float = STALL_SECONDS, rules: PassRules = ALWAYS
) -> AsyncIterator[Audited]:
    for name in ("a.tif", "b.tif", "c.tif"):
        (parts.here / name).write_bytes(name.encode())
    await parts.bring()
    (place,) = parts.bench.destinations[EQUIPMENT]
    storage = Unreadable(place.transport)
    place = replace(place, transport=storage)
    bench = replace(parts.bench, destinations={EQUIPMENT: [place]})
    in_hand = WorkInHand(parts.threads, stall_seconds)
    brakes = {(EQUIPMENT, place.name): BandwidthBrake(UNLIMITED)}
    first_seen = FirstSeen(bench.clock, bench.monotonic)
    reading = CopyReading(bench, in_hand, brakes, first_seen)
    models = (JobsProjection(), RunsProjection(), CopiesProjection())
    projections = ProjectionRunner(bench.log.store, EVENT_TYPES, parts.folder / "read_models.sqlite3", models)
    await projections.start()
    auditor = Auditor(bench, projections, reading, rules, parts.slot.making_way, first_seen)
    parts.slot.listeners.append(auditor.busy)
    projections.on_applied(auditor.applied)
    try:
        yield Audited(parts, place, storage, reading, auditor, projections, in_hand)
    finally:
        await auditor.close()
        await projections.close()
