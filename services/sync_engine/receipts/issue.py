"""Issues the signed receipt of a proven copy, from what the log says of every copy of the run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from labferry.events.v1 import job_events_pb2
from libs.event_log.event import RecordedEvent
from libs.run_tree.receipt import ProvenCopy, Receipt, sign_receipt
from libs.service_kit.version import LABFERRY_VERSION
from services.sync_engine.engine_log import EngineLog, recorded_at
from services.sync_engine.event_types import EVENT_TYPES, job_stream
from services.sync_engine.jobs.job import PROVEN_STATES, Job
from services.sync_engine.jobs.job_history import JobHistoryError
from services.sync_engine.jobs.read_model import latest_by_destination

_TRANSPORTS = {
    "uncached_read": "mounted",
    "far_sha256sum": "rsync_ssh",
    "far_sha256": "rclone",
    "download": "rclone",
}
"""By the method of a reading whose event doesn't name its transport: each method is one transport's alone."""


class ReceiptIssuer:
    """Signs with the key that signs this log's checkpoints."""

    def __init__(
        self,
        log: EngineLog,
        key: Ed25519PrivateKey,
        jobs_of_run: Callable[[str], Awaitable[Sequence[Job]]],
        clock: Callable[[], datetime],
    ) -> None:
        self._log = log
        self._key = key
        self._jobs_of_run = jobs_of_run
        self._clock = clock

    async def issue(self, job: Job) -> bytes:
        """The receipt's file for a proven job's destination. It names the run's other proven copies too, but for those
        whose last reading failed."""
        if job.manifest_blob is None:
            raise JobHistoryError(f"job {job.job_id} is {job.state} without a manifest")
        jobs = latest_by_destination([*await self._jobs_of_run(job.run), job])
        proven = {name: each for name, each in jobs.items() if each.state in PROVEN_STATES and each.verify_passes}
        readings = [(each, await self._last_reading(each)) for each in proven.values()]
        read = [(each, reading) for each, reading in readings if reading is not None]
        receipt = Receipt(
            run=job.run,
            equipment_id=job.equipment_id,
            destination=job.destination,
            job_id=job.job_id,
            amendment=job.amendment,
            issued_time=_text(self._clock()),
            manifest_sha256=job.manifest_blob,
            file_count=job.file_count,
            byte_count=job.byte_count,
            copies=[_copy(each, reading) for each, reading in read],
            log_id=self._log.store.store_id,
            tools={**_tools(reading.verified for _, reading in read), "labferry": LABFERRY_VERSION},
        )
        return sign_receipt(receipt, self._key)

    async def _last_reading(self, job: Job) -> _Reading | None:
        for event in reversed(await self._log.store.read_stream(job_stream(job.job_id))):
            verified = EVENT_TYPES.decode(event)
            if isinstance(verified, job_events_pb2.JobVerified):
                return _Reading(event, verified)
        return None


@dataclass(frozen=True, slots=True)
class _Reading:
    """A pass that matched, as it was recorded: the configuration may be another by now."""

    event: RecordedEvent
    verified: job_events_pb2.JobVerified


def _copy(job: Job, reading: _Reading) -> ProvenCopy:
    event, verified = reading.event, reading.verified
    return ProvenCopy(
        destination=job.destination,
        transport=transport_of(verified),
        job_id=job.job_id,
        grade=verified.grade,
        method=verified.method,
        host=verified.host,
        note=verified.note,
        verified_time=_text(recorded_at(event)),
        expected=verified.expected,
        hashed=verified.hashed,
        matched=verified.matched,
        evidence_sha256=verified.evidence_blob,
        log_position=event.position,
        log_hash=event.hash.hex(),
    )


def transport_of(verified: job_events_pb2.JobVerified) -> str:
    """The transport by which a copy was read; empty when its event doesn't tell."""
    return verified.transport or _TRANSPORTS.get(verified.method, "")


def _tools(readings: Iterable[job_events_pb2.JobVerified]) -> dict[str, str]:
    """Versions of what was called when the copies were read: of a tool, each that was, with commas."""
    found: dict[str, dict[str, None]] = {}
    for verified in readings:
        for name, version in verified.tools.items():
            found.setdefault(name, {})[version] = None
    return {name: ", ".join(versions) for name, versions in found.items()}


def _text(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
