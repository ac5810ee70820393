"""Reads a proven copy back, whole or a portion of it, records what was found, and has what rotted repaired."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from google.protobuf.message import Message

from labferry.events.v1 import job_events_pb2 as events
from services.sync_engine.audits.first_seen import FirstSeen
from services.sync_engine.audits.given_up import given_up
from services.sync_engine.audits.portion_reading import files_scrubbed, portion_reading
from services.sync_engine.audits.portions import PortionedPass, oldest_first
from services.sync_engine.audits.repair import Repair, Rot
from services.sync_engine.audits.turns import turns
from services.sync_engine.engine_log import BY_ITSELF, decided_anew, job_change
from services.sync_engine.jobs.failed_pass import failed_pass
from services.sync_engine.jobs.file_list import encode_copied, read_copied
from services.sync_engine.jobs.job import PROVEN_STATES, Job
from services.sync_engine.jobs.job_history import JobHistoryError
from services.sync_engine.jobs.progress import JobProgressMeter
from services.sync_engine.jobs.sealed_records import SealedRecords, keep_sealed_records
from services.sync_engine.jobs.superseded_files import without_superseded
from services.sync_engine.jobs.verify_step import (
    Occasion,
    Verification,
    could_not_check,
    inconclusive,
    read_back_whole,
    verification_of,
    verify_report,
)
from services.sync_engine.jobs.work_in_hand import WorkInHand
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.bandwidth import BandwidthBrake
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import (
    CopiedFile,
    TransferError,
    VerifyOutcome,
)

T = TypeVar("T")

_MOST_AGE = timedelta(hours=24)
_MOST_TOLD = 100


@dataclass(slots=True)
class _BegunPass:
    """A pass that gave way to transfers, to be gone on with."""

    began: datetime
    manifest_blob: str | None
    reading: PortionedPass


class CopyReading:
    """One reading at a time for each equipment; `brakes` by (equipment, destination)."""

    def __init__(
        self,
        bench: Workbench,
        in_hand: WorkInHand,
        brakes: Mapping[tuple[str, str], BandwidthBrake],
        first_seen: FirstSeen,
    ) -> None:
        self._bench = bench
        self._in_hand = in_hand
        self._brakes = brakes
        self._first_seen = first_seen
        self._repair = Repair(bench, in_hand)
        self._begun: dict[str, _BegunPass] = {}

    async def audit(self, job: Job, place: Destination, control: TransferControl, go_on: Callable[[], bool]) -> bool:
        """One pass over every file. When `go_on` says no between two portions, or `control` is stopped, what was read
        so far is kept for the next call. False: the destination couldn't be read. TransferStoppedError, BlobError when
        nobody knows any more what the copy should hold."""
        expected = await self._files(job)
        begun = self._begun.get(job.job_id)
        now = self._bench.clock()
        if begun is None or begun.manifest_blob != job.manifest_blob or not _is_young(begun, now):
            begun = self._begun[job.job_id] = _BegunPass(now, job.manifest_blob, PortionedPass(expected))
        while portion := begun.reading.next():
            if not go_on():
                return True
            try:
                begun.reading.note(portion, await self._read(job, place, portion, expected, control))
            except TransferError as error:
                del self._begun[job.job_id]
                await self._record(job, inconclusive(self._bench, job, Occasion.AUDIT, error).event)
                return False
        del self._begun[job.job_id]
        outcome = begun.reading.outcome()
        if outcome is None:
            raise JobHistoryError(f"job {job.job_id} proved a copy without a file")
        if outcome.proven:
            outcome = (await self._keep_records(job, place, control)).beside(outcome)
        found = await verification_of(self._bench, job, expected, outcome, Occasion.AUDIT, begun.began)
        await self._conclude(job, place, expected, found, control)
        return True

    async def scrub(self, job: Job, place: Destination, control: TransferControl) -> bool:
        """The portion of the files whose turn was longest ago. False: the destination couldn't be read.
        Errors as `audit`: then nothing is recorded."""
        bench = self._bench
        expected = await self._files(job)
        had, now = await turns(bench, job, len(expected), self._first_seen.times()), bench.clock()
        portion = await bench.threads.run(lambda: oldest_first(had.of(expected), len(expected), now))
        try:
            outcome = await self._read(job, place, portion.files, expected, control)
        except TransferError as error:
            failed = could_not_check(bench, job, Occasion.SCRUB, f"{error.kind}: {error.message}")
            failed.unproven_blob = await bench.blobs.put(encode_copied(portion.files))
            failed.oldest_evidence_time.FromDatetime(portion.oldest_then)
            await self._record(job, failed)
            return False
        files, outcome = await without_superseded(bench, job, portion.files, outcome)
        # A portion may hold symlinks alone, which are not counted.
        if not outcome.expected == outcome.hashed == outcome.matched or not read_back_whole(outcome, files):
            report = verify_report(job, outcome, bench.clock())
            report.passed = False
            failed = await bench.threads.run(lambda: failed_pass(bench.blobs, files, outcome, report, Occasion.SCRUB))
            failed.begun_time.FromDatetime(now)
            failed.oldest_evidence_time.FromDatetime(portion.oldest_then)
            await self._conclude(job, place, files, Verification(outcome, report, failed), control)
            return True
        await self._keep_records(job, place, control)
        await self._record(
            job, await bench.threads.run(lambda: files_scrubbed(bench.blobs, outcome, now, portion.oldest_then))
        )
        return True

    async def broke_off(self, job: Job, occasion: Occasion, why: str) -> None:
        """Records a reading that couldn't check, not by the destination's fault; what was read of it is given up."""
        self._begun.pop(job.job_id, None)
        await self._record(job, could_not_check(self._bench, job, occasion, why))

    async def _files(self, job: Job) -> Sequence[CopiedFile]:
        return await self._bench.threads.run(lambda: read_copied(self._bench.blobs, job.files_blob or ""))

    async def _read(
        self,
        job: Job,
        place: Destination,
        files: Sequence[CopiedFile],
        whole: Sequence[CopiedFile],
        control: TransferControl,
    ) -> VerifyOutcome:
        brake = self._brakes[job.equipment_id, place.name]
        reading = portion_reading(job, place, files, whole, brake, control)
        return await self._in_hand.do(f"audit {job.job_id}", control, reading.meter, reading.work)

    async def _keep_records(self, job: Job, place: Destination, control: TransferControl) -> SealedRecords:
        meter = JobProgressMeter(lambda: None)

        async def do(work: Callable[[], T]) -> T:
            return await self._in_hand.do(f"audit {job.job_id}", control, meter, work)

        records = await keep_sealed_records(self._bench, job, place, do, control, leased=True)
        if records.note:
            self._bench.logger.warning("sealed_records", job=job.job_id, destination=place.name, note=records.note)
        return records

    async def _conclude(
        self,
        job: Job,
        place: Destination,
        expected: Sequence[CopiedFile],
        found: Verification,
        control: TransferControl,
    ) -> None:
        event, bench = found.event, self._bench
        if not isinstance(event, events.JobVerificationFailed):
            await self._record(job, event)
            return
        hopeless = await given_up(bench, job, found.outcome)
        told = [path.decode(errors="replace") for path in hopeless[:_MOST_TOLD]]
        event.given_up.extend(told)
        await self._record(job, event)
        bench.logger.warning("copy_rotted", job=job.job_id, destination=place.name, given_up=len(hopeless))
        if told:
            await bench.doubt(job, told)
        suspected = bool(bench.why_suspected(job.equipment_id, job.destination))
        await self._repair.mend(job, place, Rot(expected, found.outcome, hopeless, suspected), control)

    async def _record(self, job: Job, event: Message) -> None:
        bench = self._bench

        async def attempt() -> None:
            present = await bench.log.job(job.job_id)
            if present is not None and present.state in PROVEN_STATES:
                await bench.log.append(BY_ITSELF, job_change(present, event), fence=bench.owned.fence(job.job_id))

        await decided_anew(attempt)


def _is_young(begun: _BegunPass, now: datetime) -> bool:
    return timedelta(0) <= now - begun.began < _MOST_AGE
