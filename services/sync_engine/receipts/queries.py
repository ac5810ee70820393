"""What is asked about proven copies: receipts, manifests, and the evidence of each file."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from labferry.events.v1 import job_events_pb2
from libs.event_log.blob_store import BlobStore
from libs.run_tree.receipt import Receipt, read_receipt
from services.sync_engine.engine_log import recorded_at
from services.sync_engine.errors import NothingVerifiedError, ReceiptNotFoundError, no_destination
from services.sync_engine.event_types import EVENT_TYPES, job_stream
from services.sync_engine.jobs.file_list import read_copied, read_evidence
from services.sync_engine.jobs.job import PROVEN_STATES, Job
from services.sync_engine.jobs.last_readings import last_of_each
from services.sync_engine.jobs.read_model import latest_by_destination
from services.sync_engine.jobs.read_since import read_since
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.spilled_list import SpilledList
from services.sync_engine.transfer.transport import FileEvidence

_PIECE = 256 << 10


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of one file of one copy. `method`, `host` and `note` are those of the reading, and
    `time` is when it began."""

    destination: str
    evidence: FileEvidence
    method: str
    host: str
    note: str
    time: datetime

    @property
    def path(self) -> bytes:
        return self.evidence.path


@dataclass(frozen=True, slots=True)
class _Reading:
    evidence_blob: str
    method: str
    host: str
    note: str
    time: datetime


class _ReadFile(msgspec.Struct, frozen=True, array_like=True):
    """`reading` is its number."""

    evidence: FileEvidence
    reading: int

    @property
    def path(self) -> bytes:
        return self.evidence.path


class Proofs:
    """What is known of each file of a copy, sorted by path."""

    def __init__(self, destination: str, readings: Sequence[_Reading], files: SpilledList[_ReadFile]) -> None:
        self._destination = destination
        self._readings = readings
        self._files = files

    def __iter__(self) -> Iterator[Proof]:
        for file in self._files:
            read = self._readings[file.reading]
            yield Proof(self._destination, file.evidence, read.method, read.host, read.note, read.time)


@dataclass(frozen=True, slots=True)
class ReceiptFile:
    """A receipt, and its file as it lies beside the data."""

    receipt: Receipt
    content: bytes


class ProofQueries:
    """Reads the log and the blobs; changes nothing."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def receipt(self, run: str, destination: str | None) -> ReceiptFile:
        """ReceiptNotFoundError before the run is sealed there; DestinationNotFoundError."""
        sealed = await self._jobs(run, destination, lambda jobs: [job for job in jobs if job.receipt_blob])
        if not sealed:
            where = destination or "any destination"
            raise ReceiptNotFoundError(
                f"run {run} has no receipt of {where}", metadata={"run": run, "destination": destination or ""}
            )
        content = await self._bench.blobs.read(sealed[0].receipt_blob)
        return ReceiptFile(read_receipt(content).receipt, content)

    async def manifest(self, run: str, destination: str | None) -> AsyncGenerator[bytes, None]:
        """The first job's manifest, in pieces. NothingVerifiedError, DestinationNotFoundError."""
        job = (await self._proven(run, destination))[0]
        blobs, digest = self._bench.blobs, job.manifest_blob or ""
        with await self._bench.threads.run(lambda: blobs.open_checked_sync(digest)) as manifest:
            while piece := await self._bench.threads.run(lambda: manifest.read(_PIECE)):
                yield piece

    async def evidence(self, run: str, destination: str | None) -> AsyncGenerator[Proof, None]:
        """By destination, then by path. Errors as `manifest`."""
        for job in await self._proven(run, destination):
            for proof in await self.proofs(job):
                yield proof

    async def proofs(self, job: Job) -> Proofs:
        """The last reading of each file of a copy."""
        readings: list[_Reading] = []
        for event in await self._bench.log.store.read_stream(job_stream(job.job_id)):
            read = EVENT_TYPES.decode(event)
            if isinstance(read, job_events_pb2.JobVerified):
                readings = []
            if isinstance(read, job_events_pb2.JobVerified | job_events_pb2.JobFilesScrubbed):
                since = read_since(read, recorded_at(event))
                readings.append(_Reading(read.evidence_blob, read.method, read.host, read.note, since))
            if isinstance(read, job_events_pb2.JobVerificationFailed) and read.evidence_blob:
                matched, report, since = read.evidence_blob, read.report, read_since(read, recorded_at(event))
                readings.append(_Reading(matched, report.method, report.host, report.note, since))
        blobs, files_blob = self._bench.blobs, job.files_blob or ""
        files = await self._bench.threads.run(lambda: _last_read(blobs, files_blob, readings))
        return Proofs(job.destination, readings, files)

    async def _proven(self, run: str, destination: str | None) -> Sequence[Job]:
        jobs = await self._jobs(run, destination, _proven)
        if not jobs:
            raise NothingVerifiedError(f"run {run} has no verified job", metadata={"run": run})
        return jobs

    async def _jobs(
        self, run: str, destination: str | None, those: Callable[[Sequence[Job]], Sequence[Job]]
    ) -> Sequence[Job]:
        """The last of those jobs of each destination, in the order of the configuration; then come those that it has no
        more: a proof lasts as long as the log. An amendment takes nothing back before it is proven itself."""
        bench = self._bench
        path = bench.locator.parse(run)
        jobs = await bench.jobs_of_run(run)
        if not jobs:
            bench.locator.equipment(path.equipment_id)
        configured = [d.name for d in bench.destinations.get(path.equipment_id, ())]
        names = dict.fromkeys((*configured, *(job.destination for job in jobs)))
        if destination is not None and destination not in names:
            raise no_destination(path.equipment_id, destination)
        latest = latest_by_destination(those(jobs))
        return [latest[name] for name in names if name in latest and destination in (None, name)]


def _proven(jobs: Sequence[Job]) -> Sequence[Job]:
    return [job for job in jobs if job.state in PROVEN_STATES]


def _last_read(blobs: BlobStore, files_blob: str, readings: Sequence[_Reading]) -> SpilledList[_ReadFile]:
    def read(number: int) -> Iterator[_ReadFile]:
        for file in read_evidence(blobs, readings[number].evidence_blob):
            yield _ReadFile(file, number)

    return last_of_each(_ReadFile, len(readings), read, len(read_copied(blobs, files_blob)))
