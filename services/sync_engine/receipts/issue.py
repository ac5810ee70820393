"""Issues the signed receipt of a proven copy, from what the log says of every copy of the run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from labferry.events.v1 import job_events_pb2
from libs.run_tree.receipt import ProvenCopy, Receipt, sign_receipt
from libs.service_kit.version import LABFERRY_VERSION
from services.sync_engine.engine_log import EngineLog, recorded_at
from services.sync_engine.event_types import EVENT_TYPES, job_stream
from services.sync_engine.jobs.job import PROVEN_STATES, Job
from services.sync_engine.jobs.job_history import JobHistoryError
from services.sync_engine.jobs.read_model import latest_by_destination
from services.sync_engine.transfer.destination import Destination


class ReceiptIssuer:
    """Signs with the key that signs this log's checkpoints."""

    def __init__(
        self,
        log: EngineLog,
        key: Ed25519PrivateKey,
        destinations: Mapping[str, Sequence[Destination]],
        jobs_of_run: Callable[[str], Awaitable[Sequence[Job]]],
        clock: Callable[[], datetime],
    ) -> None:
        self._log = log
        self._key = key
        self._destinations = destinations
        self._jobs_of_run = jobs_of_run
        self._clock = clock

    async def issue(self, job: Job) -> bytes:
        """The receipt's file for a proven job's destination. It names the run's other proven copies too, but for those
        whose last reading failed."""
        if job.manifest_blob is None:
            raise JobHistoryError(f"job {job.job_id} is {job.state} without a manifest")
        jobs = latest_by_destination([*await self._jobs_of_run(job.run), job])
        proven = {name: each for name, each in jobs.items() if each.state in PROVEN_STATES and each.verify_passes}
        copies = [await self._copy(each) for each in proven.values()]
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
            copies=[copy for copy in copies if copy is not None],
            log_id=self._log.store.store_id,
            tools={**self._tools(job.equipment_id, proven), "labferry": LABFERRY_VERSION},
        )
        return sign_receipt(receipt, self._key)

    def _tools(self, equipment_id: str, names: Collection[str]) -> dict[str, str]:
        """Versions of what this engine carries and verifies with, at the destinations of these names."""
        places = (d for d in self._destinations.get(equipment_id, ()) if d.name in names)
        return {name: version for place in places for name, version in place.transport.tools.items()}

    async def _copy(self, job: Job) -> ProvenCopy | None:
        kinds = {d.name: d.kind for d in self._destinations.get(job.equipment_id, ())}
        for event in reversed(await self._log.store.read_stream(job_stream(job.job_id))):
            verified = EVENT_TYPES.decode(event)
            if isinstance(verified, job_events_pb2.JobVerified):
                return ProvenCopy(
                    destination=job.destination,
                    transport=kinds.get(job.destination, ""),
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
        return None


def _text(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
