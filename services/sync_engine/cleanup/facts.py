"""Gathers what the interlocks ask about a run: from the log, from its destinations, and from this machine's disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from labferry.events.v1 import job_events_pb2, run_events_pb2
from libs.event_log.blob_store import BlobError
from libs.run_tree.json_value import decode_json
from libs.run_tree.overrides import OverrideEntry
from services.sync_engine.cleanup.appeared import what_appeared
from services.sync_engine.cleanup.interlocks import CleanupFacts, CopyFacts, LocalFacts
from services.sync_engine.cleanup.local_files import look_at_local_files
from services.sync_engine.cleanup.remaining import RemainingFiles
from services.sync_engine.cleanup.standing_gate import StandingGate
from services.sync_engine.cleanup.ticket import Ticket
from services.sync_engine.cleanup.work import CleanupWork
from services.sync_engine.event_types import EVENT_TYPES, job_stream, run_stream
from services.sync_engine.jobs.amendment import proven_bases
from services.sync_engine.jobs.file_list import read_copied
from services.sync_engine.jobs.job import BEFORE_CLEANUP, PROVEN_STATES, Job, JobState
from services.sync_engine.jobs.progress import JobProgressMeter
from services.sync_engine.jobs.read_model import latest_by_destination
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import TransferError

_NOT_LOOKED_AT = LocalFacts(Ticket(()), problem="not looked at: other interlocks don't hold", looked_at=False)


class CleanupLook:
    """Looks at one run at a time; changes nothing but importing overrides that other programs wrote, as every look of
    the gate does."""

    def __init__(self, bench: Workbench, work: CleanupWork) -> None:
        self._bench = bench
        self._work = work

    async def facts(self, located: LocatedRun, local: LocalFacts | None = None) -> CleanupFacts:
        """`local`: how the files were found; absent, they are not looked at. Errors of the log."""
        bench = self._bench
        places = bench.destinations[located.path.equipment_id]
        jobs = latest_by_destination(await bench.jobs_of_run(located.identity))
        latest = {name: await bench.log.job(job.job_id) for name, job in jobs.items()}
        problems = await asyncio.gather(*(self._ask(located.path.equipment_id, place) for place in places))
        names = {place.name for place in places}
        gate = await StandingGate(bench, located.identity).refusal()
        # After the gate, which imports what other programs wrote into the run's file.
        record = await bench.log.run(located.identity)
        return CleanupFacts(
            now=bench.clock(),
            copies=[CopyFacts(p.name, latest.get(p.name), q) for p, q in zip(places, problems, strict=True)],
            elsewhere=[n for n, job in latest.items() if n not in names and job is not None and _may_still_move(job)],
            recent_tombstones=await self._recent_tombstones(located.identity, [latest.get(p.name) for p in places]),
            gate=gate,
            local=local or _NOT_LOOKED_AT,
            sync_status=record.sync_status,
            override_count=len(record.overrides),
            deletion_begun=any(job is not None and job.deletion_begun for job in latest.values()),
            of_project=located.path.is_project,
        )

    async def local(self, located: LocatedRun, copies: Sequence[CopyFacts]) -> LocalFacts:
        """Hashes the run's files here. TransferStoppedError when the engine ends meanwhile."""
        blobs, digests = self._bench.blobs, []
        for copy in copies:
            if copy.job is None or copy.job.state not in PROVEN_STATES or copy.job.files_blob is None:
                return LocalFacts(Ticket(()), problem=f"{copy.destination} holds no verified copy to compare with")
            digests.append(copy.job.files_blob)
        try:
            lists = await self._bench.threads.run(lambda: [read_copied(blobs, digest) for digest in digests])
        except BlobError as error:
            return LocalFacts(Ticket(()), problem=f"nobody knows any more what was verified: {error}")
        control, meter = TransferControl(), JobProgressMeter(lambda: None)
        try:
            return await self._work.do(control, meter, lambda: look_at_local_files(located, lists, control))
        except TransferError as error:
            return LocalFacts(Ticket(()), problem=f"the run can't be looked at: {error.message}")

    async def appeared(self, located: LocatedRun) -> RemainingFiles:
        """What lies in a cleaned run's folder again. TransferStoppedError when the engine ends meanwhile."""
        bench = self._bench
        places = {place.name for place in bench.destinations[located.path.equipment_id]}
        bases = proven_bases(await bench.jobs_of_run(located.identity))
        jobs = [job for name, job in bases.items() if name in places]
        try:
            lists = await bench.threads.run(lambda: [read_copied(bench.blobs, job.files_blob or "") for job in jobs])
        except BlobError:
            # Then nothing here is known to be proven.
            lists = []
        wrong = [job.destination for job in jobs if not job.verify_passes]
        control, meter = TransferControl(), JobProgressMeter(lambda: None)
        return await self._work.do(control, meter, lambda: what_appeared(located, lists, wrong, control))

    async def _ask(self, equipment_id: str, place: Destination) -> str:
        try:
            failure = await self._bench.watch.ask(equipment_id, place)
        except TransferError as error:
            return error.message
        return "" if failure is None else failure.message

    async def _recent_tombstones(self, run: str, jobs: Sequence[Job | None]) -> Sequence[str]:
        """Ids of tombstones recorded after a copy was last verified: by the log's order, and those of other programs by
        their own time too."""
        store = self._bench.log.store
        verified = [await self._last_pass(job) for job in jobs if job is not None]
        if not verified:
            return ()
        behind, since = min(p for p, _ in verified), min(t for _, t in verified)
        recent = []
        for event in await store.read_stream(run_stream(run)):
            payload = EVENT_TYPES.decode(event)
            match payload:
                case run_events_pb2.RunOverrideRevoked() if event.position > behind:
                    recent.append(payload.tombstone_id)
                case run_events_pb2.RunOverrideImported():
                    raw = decode_json(payload.entry_json.encode())
                    entry = OverrideEntry(raw) if isinstance(raw, dict) else OverrideEntry({})
                    if entry.revoked and (event.position > behind or _is_recent(entry, since)):
                        recent.append(payload.override_id)
                case _:
                    pass
        return recent

    async def _last_pass(self, job: Job) -> tuple[int, datetime]:
        position = 0
        for event in await self._bench.log.store.read_stream(job_stream(job.job_id)):
            payload = EVENT_TYPES.decode(event)
            if isinstance(payload, job_events_pb2.JobVerified) and payload.occasion != BEFORE_CLEANUP:
                position = event.position
        return position, job.verified or job.enqueued


def _may_still_move(job: Job) -> bool:
    return job.state not in PROVEN_STATES and job.state is not JobState.CANCELLED


def _is_recent(entry: OverrideEntry, verified: datetime) -> bool:
    """By the time that its author wrote, in whole seconds; a malformed one counts as recent."""
    recorded = entry.recorded_at
    if recorded is None or recorded.tzinfo is None:
        return True
    return recorded >= verified.replace(microsecond=0)
