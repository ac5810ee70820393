"""Carries a ticket out: recorded before the first file goes, in portions, and its outcome recorded whatever happens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from google.protobuf.message import Message

from labferry.events.v1 import job_events_pb2, run_events_pb2
from libs.run_tree.creation_json import creation_path
from libs.run_tree.creation_record import SyncStatus
from libs.run_tree.manifest import CACHE_FOLDER
from services.sync_engine.audits.portions import MOST_FILES, next_portion
from services.sync_engine.cleanup.cache_folder import CacheFolder
from services.sync_engine.cleanup.deletion import Remaining, delete_files
from services.sync_engine.cleanup.evidence import FreshEvidence
from services.sync_engine.cleanup.interlocks import CleanupRules, InterlockName, LocalFacts
from services.sync_engine.cleanup.local_files import is_still_there
from services.sync_engine.cleanup.permission import ENGINE_ENDS, Begun, Permission, evidence_jobs
from services.sync_engine.cleanup.remaining import RemainingFiles, left_over, remaining_message
from services.sync_engine.cleanup.ticket import Ticket
from services.sync_engine.engine_log import BY_ITSELF, Cause, decided_anew, job_change, run_change
from services.sync_engine.jobs.file_list import copied_lines, read_copied
from services.sync_engine.jobs.job import Job, JobState
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.runs.run import OpenCleanup, RunRecord, evolve, status_change
from services.sync_engine.transfer.path_order import InStep
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl, TransferStoppedError
from services.sync_engine.transfer.transport import CopiedFile

_PORTION = 100
_CUT_OFF = "the engine ended before it was deleted"
_LATER = "it appeared later"


@dataclass(slots=True)
class _Tally:
    """What a deletion came to so far. `refused` are files that were not what the ticket says."""

    file_count: int = 0
    byte_count: int = 0
    refused: set[bytes] = field(default_factory=set)
    remaining: RemainingFiles = field(default_factory=RemainingFiles)
    cache_deleted: bool = False

    def refuse(self, files: Sequence[Remaining]) -> None:
        self.refused.update(file.path for file in files)
        self.remaining.add(files)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`cleaned`: nothing of the run's data is left here. `remaining` are the first of the files that are."""

    cleaned: bool
    file_count: int
    byte_count: int
    remaining: Sequence[Remaining]


class Execution:
    """One deletion after another for each run; the caller sees to that."""

    def __init__(
        self, bench: Workbench, rules: CleanupRules, cache: CacheFolder, *, portion_files: int = _PORTION
    ) -> None:
        self._bench = bench
        self._rules = rules
        self._cache = cache
        self._portion_files = portion_files
        self._control = TransferControl()

    def stop(self) -> None:
        """The engine ends: no further file is deleted."""
        self._control.stop(StopReason.ENGINE_STOPPING)

    async def begin(
        self,
        record: RunRecord,
        jobs: Sequence[Job],
        evidence: FreshEvidence,
        local: LocalFacts,
        lead: Job,
        cause: Cause,
    ) -> Begun:
        """Records the ticket, and that every job is eligible. RevisionConflictError when the run or a job is not as it
        was looked at."""
        bench = self._bench
        event = run_events_pb2.RunCleanupBegun(
            run=record.run,
            ticket_blob=await bench.threads.run(lambda: bench.blobs.put_pieces_sync(copied_lines(local.ticket.files))),
            file_count=local.ticket.file_count,
            byte_count=local.ticket.byte_count,
            evidence=evidence.found,
            with_cache=not self._rules.retain_cache,
        )
        eligible = [job_change(j, job_events_pb2.JobCleanupEligible()) for j in jobs]
        await bench.log.append(cause, run_change(record, event), *eligible, fence=bench.owned.fence(lead.job_id))
        # Not read back from the log: what somebody appended since must show as a change.
        after = evolve(record, event)
        if after.open_cleanup is None:
            raise AssertionError("a begun cleanup is open")
        return Begun(after, after.open_cleanup)

    async def carry_out(
        self, located: LocatedRun, begun: Begun, ticket: Ticket, evidence: FreshEvidence, lead: Job, cause: Cause
    ) -> Outcome:
        """Deletes what the ticket names, as long as nothing happens to the run, no copy is found not to match, and
        `lead` is this engine's; evidence that is too old when a file's turn comes is renewed first. LeaseLostError when
        `lead` isn't this engine's at the end: whoever has it records what was deleted."""
        tally = _Tally()
        permission = Permission(self._bench, begun, lead, self._control)
        try:
            await self._portions(located, ticket, evidence, permission, tally)
        except TransferStoppedError:
            permission.ended = permission.ended or ENGINE_ENDS
        # What refused the last portion's files is why they are still there.
        await permission.stands()
        await self._bench.threads.run(partial(_see_what_is_left, located, ticket.files, permission.ended, tally))
        if not tally.remaining.count and not self._rules.retain_cache:
            jobs = await evidence_jobs(self._bench, begun.open)
            of_cache = Permission(self._bench, begun, lead, self._control)
            tally.remaining.add(await self._cache.delete(located, jobs, of_cache.holds))
            tally.cache_deleted = not tally.remaining.count
        found = evidence.found
        return await self._conclude(begun.record.run, begun.open, found, tally, lead, cause, interrupted=False)

    async def _portions(
        self, located: LocatedRun, ticket: Ticket, evidence: FreshEvidence, permission: Permission, tally: _Tally
    ) -> None:
        start = 0
        while start < ticket.file_count:
            files = next_portion(ticket.files[start : start + self._portion_files])
            permission.ended = await evidence.renew(files, partial(_ahead, ticket, start))
            permission.fresh_until = evidence.good_until(files)
            if not await permission.stands():
                return
            await self._portion(located, files, permission, tally)
            start += len(files)
            if self._rules.limits.too_many_refused(len(tally.refused), ticket):
                permission.ended = "too many files are not what the ticket says"
                return

    async def finish_interrupted(self, located: LocatedRun, lead: Job) -> None:
        """A deletion that a crash cut off: nothing more is deleted, and what it left is recorded. A cache
        folder that was to go too waits for a new ticket, unless it is gone."""
        bench = self._bench
        record = await bench.log.run(located.identity)
        if record.open_cleanup is None:
            return
        ticket_blob = record.open_cleanup.ticket_blob
        tally = await bench.threads.run(lambda: _what_was_deleted(located, read_copied(bench.blobs, ticket_blob)))
        if not tally.remaining.count and not self._rules.retain_cache:
            tally.cache_deleted = not await bench.threads.run(creation_path(located.folder).exists)
            if not tally.cache_deleted:
                tally.remaining.add([Remaining(CACHE_FOLDER, _CUT_OFF)])
        found = [
            run_events_pb2.CleanupEvidence(destination=d, job_id=j, position=p)
            for d, j, p in record.open_cleanup.evidence
        ]
        await self._conclude(record.run, record.open_cleanup, found, tally, lead, BY_ITSELF, interrupted=True)

    async def _portion(
        self, located: LocatedRun, files: Sequence[CopiedFile], permission: Permission, tally: _Tally
    ) -> None:
        try:
            heard = self._control.raise_if_stopped
            done = await self._bench.threads.run(partial(delete_files, located.folder, files, permission.holds, heard))
        except OSError as error:
            tally.refuse([Remaining(f.path, error.strerror or str(error)) for f in files])
            return
        tally.file_count += len(done.files)
        tally.byte_count += sum(file.size for file in done.files)
        tally.refuse(done.remaining)

    async def _conclude(
        self,
        run: str,
        opened: OpenCleanup,
        found: Sequence[run_events_pb2.CleanupEvidence],
        tally: _Tally,
        lead: Job,
        cause: Cause,
        *,
        interrupted: bool,
    ) -> Outcome:
        bench = self._bench

        async def attempt() -> bool:
            record, jobs = await bench.log.run(run), await evidence_jobs(bench, opened)
            doubted = [job.destination for job in jobs if job.state is not JobState.CLEANUP_ELIGIBLE]
            # Copies of which one was found not to match are no place to point to for data that is gone here.
            cleaned = not tally.remaining.count and not doubted
            ended = run_events_pb2.RunCleanupEnded(
                run=run,
                cleaned=cleaned,
                file_count=tally.file_count,
                byte_count=tally.byte_count,
                evidence=found,
                remaining=[remaining_message(r) for r in tally.remaining.first],
                remaining_count=tally.remaining.count,
                interrupted=interrupted,
                cache_deleted=tally.cache_deleted,
            )
            status = status_change(record, SyncStatus.CLEANED) if cleaned else ()
            of_job: Message = job_events_pb2.JobCleaned() if cleaned else _held(tally, doubted)
            changes = [job_change(job, of_job) for job in jobs if job.state is JobState.CLEANUP_ELIGIBLE]
            fence = bench.owned.fence(lead.job_id)
            await bench.log.append(cause, run_change(record, ended, *status), *changes, fence=fence)
            return cleaned

        cleaned = await decided_anew(attempt)
        return Outcome(cleaned, tally.file_count, tally.byte_count, tally.remaining.first)


def _ahead(ticket: Ticket, start: int) -> Sequence[CopiedFile]:
    return ticket.files[start : start + MOST_FILES]


def _see_what_is_left(located: LocatedRun, ticketed: Sequence[CopiedFile], ended: str, tally: _Tally) -> None:
    known = InStep(ticketed)

    def why(path: bytes) -> str:
        if path in tally.refused:
            return ""
        return _LATER if known.at(path) is None else ended or "it vanished and came back"

    tally.remaining.join(left_over(located, why))


def _what_was_deleted(located: LocatedRun, ticketed: Sequence[CopiedFile]) -> _Tally:
    """Of a deletion that nobody was left to tell of."""
    tally = _Tally()
    for file in ticketed:
        if is_still_there(located.folder, file):
            tally.remaining.add([Remaining(file.path, _CUT_OFF)])
        else:
            tally.file_count += 1
            tally.byte_count += file.size
    known = InStep(ticketed)
    tally.remaining.join(left_over(located, lambda path: _LATER if known.at(path) is None else ""))
    return tally


def _held(tally: _Tally, doubted: Sequence[str]) -> job_events_pb2.JobCleanupHeld:
    if not tally.remaining.count:
        return job_events_pb2.JobCleanupHeld(
            interlocks=[InterlockName.FRESH_READ_BACK.value],
            detail=f"the copy at {', '.join(doubted)} was found not to match while the local data went",
        )
    first = tally.remaining.first[0]
    more = f" and {tally.remaining.count - 1} more" if tally.remaining.count > 1 else ""
    return job_events_pb2.JobCleanupHeld(
        interlocks=["files_left"], detail=f"still here: {shown(first.path)} ({first.why}){more}"
    )
