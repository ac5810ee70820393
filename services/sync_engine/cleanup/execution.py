"""Carries a ticket out: recorded before the first file goes, in portions, and its outcome recorded whatever happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from google.protobuf.message import Message

from labferry.events.v1 import job_events_pb2, run_events_pb2
from labferry.sync.v1 import run_pb2
from libs.run_tree.creation_json import creation_path
from libs.run_tree.creation_record import SyncStatus
from libs.run_tree.manifest import CACHE_FOLDER
from services.sync_engine.cleanup.cache_folder import CacheFolder
from services.sync_engine.cleanup.deletion import Remaining, delete_files
from services.sync_engine.cleanup.interlocks import CleanupRules, LocalFacts
from services.sync_engine.cleanup.local_files import files_left, is_still_there
from services.sync_engine.cleanup.ticket import TICKET_SECONDS, Ticket
from services.sync_engine.engine_log import BY_ITSELF, Cause, decided_anew, job_change, run_change
from services.sync_engine.jobs.file_list import copied_lines, read_copied
from services.sync_engine.jobs.job import Job, JobState
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.runs.run import OpenCleanup, RunRecord, status_change
from services.sync_engine.transfer.path_order import InStep
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transport import CopiedFile, TransferError, bytes_unless_text

_PORTION = 100
_MOST_REMAINING = 100
_CUT_OFF = "the engine ended before it was deleted"
_LATER = "it appeared later"


@dataclass(slots=True)
class RemainingFiles:
    """How many files are still there, and the first of them."""

    count: int = 0
    first: list[Remaining] = field(default_factory=list)

    def add(self, files: Iterable[Remaining]) -> None:
        for file in files:
            self.count += 1
            if len(self.first) < _MOST_REMAINING:
                self.first.append(file)

    def join(self, others: RemainingFiles) -> None:
        """Those after these."""
        self.count += others.count
        self.first += others.first[: _MOST_REMAINING - len(self.first)]


@dataclass(slots=True)
class _Tally:
    """What a deletion came to so far. `refused` are files that were not what the ticket says. `ended` says why it
    stopped before its last file; empty: it didn't."""

    file_count: int = 0
    byte_count: int = 0
    refused: set[bytes] = field(default_factory=set)
    remaining: RemainingFiles = field(default_factory=RemainingFiles)
    ended: str = ""
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


@dataclass(frozen=True, slots=True)
class Begun:
    """A ticket that stands in the log; `record` is the run with it."""

    record: RunRecord
    open: OpenCleanup


class Execution:
    """One deletion after another for each run; the caller sees to that."""

    def __init__(self, bench: Workbench, rules: CleanupRules, cache: CacheFolder) -> None:
        self._bench = bench
        self._rules = rules
        self._cache = cache
        self._stopping = False

    def stop(self) -> None:
        """The engine ends: no further portion is begun."""
        self._stopping = True

    async def begin(
        self,
        record: RunRecord,
        jobs: Sequence[Job],
        positions: Mapping[str, int],
        local: LocalFacts,
        lead: Job,
        cause: Cause,
    ) -> Begun:
        """Records the ticket, and that every job is eligible. RevisionConflictError when the run or a job is not as it
        was looked at."""
        bench = self._bench
        evidence = [
            run_events_pb2.CleanupEvidence(
                destination=j.destination, job_id=j.job_id, position=positions[j.destination]
            )
            for j in jobs
        ]
        event = run_events_pb2.RunCleanupBegun(
            run=record.run,
            ticket_blob=await bench.threads.run(lambda: bench.blobs.put_pieces_sync(copied_lines(local.ticket.files))),
            file_count=local.ticket.file_count,
            byte_count=local.ticket.byte_count,
            evidence=evidence,
            with_cache=not self._rules.retain_cache,
        )
        eligible = [job_change(j, job_events_pb2.JobCleanupEligible()) for j in jobs]
        await bench.log.append(cause, run_change(record, event), *eligible, fence=bench.owned.fence(lead.job_id))
        after = await bench.log.run(record.run)
        if after.open_cleanup is None:
            raise AssertionError("a begun cleanup is open")
        return Begun(after, after.open_cleanup)

    async def carry_out(
        self, located: LocatedRun, begun: Begun, ticket: Ticket, evidence_began: float, lead: Job, cause: Cause
    ) -> Outcome:
        """Deletes what the ticket names, as long as nothing happens to the run in the log and `lead` is this engine's.
        LeaseLostError when it isn't at the end: whoever has it records what was deleted."""
        tally = _Tally()
        for start in range(0, ticket.file_count, _PORTION):
            tally.ended = await self._reason_to_end(begun.record, evidence_began, lead)
            if tally.ended:
                break
            await self._portion(located, ticket.files[start : start + _PORTION], lead, tally)
            if self._rules.limits.too_many_refused(len(tally.refused), ticket):
                tally.ended = "too many files are not what the ticket says"
                break
        await self._bench.threads.run(partial(_see_what_is_left, located, ticket.files, tally))
        if not tally.remaining.count and not self._rules.retain_cache:
            jobs = await self._jobs(begun.open)
            tally.remaining.add(await self._cache.delete(located, jobs, partial(self._bench.owned.holds, lead.job_id)))
            tally.cache_deleted = not tally.remaining.count
        return await self._conclude(begun.record.run, begun.open, tally, lead, cause, interrupted=False)

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
        await self._conclude(record.run, record.open_cleanup, tally, lead, BY_ITSELF, interrupted=True)

    async def _reason_to_end(self, begun: RunRecord, evidence_began: float, lead: Job) -> str:
        if self._stopping:
            return "the engine ends"
        if not self._bench.owned.holds(lead.job_id):
            return "another engine may have the run by now"
        if time.monotonic() - evidence_began > TICKET_SECONDS:
            return "the ticket expired"
        if (await self._bench.log.run(begun.run)).revision != begun.revision:
            return "something happened to the run meanwhile"
        return ""

    async def _portion(self, located: LocatedRun, files: Sequence[CopiedFile], lead: Job, tally: _Tally) -> None:
        may = partial(self._bench.owned.holds, lead.job_id)
        try:
            done = await self._bench.threads.run(partial(delete_files, located.folder, files, may))
        except OSError as error:
            tally.refuse([Remaining(f.path, error.strerror or str(error)) for f in files])
            return
        tally.file_count += len(done.files)
        tally.byte_count += sum(file.size for file in done.files)
        tally.refuse(done.remaining)

    async def _conclude(
        self, run: str, opened: OpenCleanup, tally: _Tally, lead: Job, cause: Cause, *, interrupted: bool
    ) -> Outcome:
        cleaned = not tally.remaining.count
        ended = run_events_pb2.RunCleanupEnded(
            run=run,
            cleaned=cleaned,
            file_count=tally.file_count,
            byte_count=tally.byte_count,
            evidence=[
                run_events_pb2.CleanupEvidence(destination=d, job_id=j, position=p) for d, j, p in opened.evidence
            ],
            remaining=[remaining_message(r) for r in tally.remaining.first],
            remaining_count=tally.remaining.count,
            interrupted=interrupted,
            cache_deleted=tally.cache_deleted,
        )

        async def attempt() -> None:
            bench = self._bench
            record = await bench.log.run(run)
            status = status_change(record, SyncStatus.CLEANED) if cleaned else ()
            of_job: Message = job_events_pb2.JobCleaned() if cleaned else _held(tally)
            jobs = [j for j in await self._jobs(opened) if j.state is JobState.CLEANUP_ELIGIBLE]
            changes = [job_change(j, of_job) for j in jobs]
            fence = bench.owned.fence(lead.job_id)
            await bench.log.append(cause, run_change(record, ended, *status), *changes, fence=fence)

        await decided_anew(attempt)
        return Outcome(cleaned, tally.file_count, tally.byte_count, tally.remaining.first)

    async def _jobs(self, opened: OpenCleanup) -> list[Job]:
        jobs = [await self._bench.log.job(job_id) for _, job_id, _ in opened.evidence]
        return [job for job in jobs if job is not None]


def left_over(located: LocatedRun, why: Callable[[bytes], str]) -> RemainingFiles:
    """The files that lie in the run's folder, its cache apart. `why`, asked in the order of their paths, says of each
    why it is there; an empty text leaves it out."""
    left = RemainingFiles()
    try:
        left.add(Remaining(path, said) for path in files_left(located) if (said := why(path)))
    except TransferError as error:
        left.add([Remaining(b".", f"the run can't be looked at: {error.message}")])
    return left


def _see_what_is_left(located: LocatedRun, ticketed: Sequence[CopiedFile], tally: _Tally) -> None:
    known = InStep(ticketed)
    ended = tally.ended or "it vanished and came back"

    def why(path: bytes) -> str:
        if path in tally.refused:
            return ""
        return _LATER if known.at(path) is None else ended

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


def remaining_message(remaining: Remaining) -> run_pb2.RemainingFile:
    return run_pb2.RemainingFile(
        path=shown(remaining.path), path_bytes=bytes_unless_text(remaining.path), why=remaining.why
    )


def _held(tally: _Tally) -> job_events_pb2.JobCleanupHeld:
    first = tally.remaining.first[0]
    more = f" and {tally.remaining.count - 1} more" if tally.remaining.count > 1 else ""
    return job_events_pb2.JobCleanupHeld(
        interlocks=["files_left"], detail=f"still here: {shown(first.path)} ({first.why}){more}"
    )
