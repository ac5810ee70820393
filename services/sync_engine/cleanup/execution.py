"""Carries a ticket out: recorded before the first file goes, in portions, and its outcome recorded whatever happens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from labferry.events.v1 import job_events_pb2, run_events_pb2
from libs.event_log.blob_store import BlobError
from libs.event_log.store import EventStoreError
from libs.run_tree.creation_json import creation_path
from libs.run_tree.manifest import CACHE_FOLDER
from services.sync_engine.audits.portions import MOST_FILES, next_portion
from services.sync_engine.cleanup.cache_folder import CacheFolder
from services.sync_engine.cleanup.cut_off import put_back_what_was_cut_off
from services.sync_engine.cleanup.deletion import Remaining, delete_files
from services.sync_engine.cleanup.deletion_end import AGAIN_SECONDS, DeletionEnd, DeletionEnds, Outcome, Tally
from services.sync_engine.cleanup.evidence import FreshEvidence
from services.sync_engine.cleanup.interlocks import CleanupRules, LocalFacts
from services.sync_engine.cleanup.local_files import is_still_there
from services.sync_engine.cleanup.permission import ENGINE_ENDS, Begun, Permission, evidence_jobs, log_is_silent
from services.sync_engine.cleanup.remaining import left_over
from services.sync_engine.cleanup.ticket import Ticket
from services.sync_engine.engine_log import BY_ITSELF, Cause, job_change, run_change
from services.sync_engine.jobs.file_list import copied_lines, read_copied
from services.sync_engine.jobs.job import Job, JobState, JobStateError
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.runs.run import RunRecord, evolve
from services.sync_engine.transfer.path_order import InStep
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl, TransferStoppedError
from services.sync_engine.transfer.transport import CopiedFile

_PORTION = 100
_CUT_OFF = "the engine ended before it was deleted"
_LATER = "it appeared later"


class Execution:
    """One deletion after another for each run; the caller sees to that."""

    def __init__(
        self,
        bench: Workbench,
        rules: CleanupRules,
        cache: CacheFolder,
        *,
        portion_files: int = _PORTION,
        again_seconds: float = AGAIN_SECONDS,
    ) -> None:
        self._bench = bench
        self._rules = rules
        self._cache = cache
        self._portion_files = portion_files
        self._control = TransferControl()
        self.ends = DeletionEnds(bench, again_seconds)

    def stop(self) -> None:
        """The engine ends: no further file is deleted."""
        self._control.stop(StopReason.ENGINE_STOPPING)
        self.ends.stop()

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
        was looked at; JobStateError when a job's copy isn't one that a deletion can rest on."""
        bench = self._bench
        for job in jobs:
            if job.state not in (JobState.VERIFIED, JobState.CLEANUP_ELIGIBLE):
                raise JobStateError(job, "clean")
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
        `lead` is this engine's; evidence that is too old when a file's turn comes is renewed first.
        EndNotRecordedError."""
        tally = Tally()
        permission = Permission(self._bench, begun, lead, self._control)
        try:
            await self._portions(located, ticket, evidence, permission, tally)
        except TransferStoppedError:
            permission.ended = permission.ended or ENGINE_ENDS
        except EventStoreError as error:
            permission.ended = permission.ended or log_is_silent(error)
        # What refused the last portion's files is why they are still there.
        await permission.stands()
        await self._bench.threads.run(partial(_see_what_is_left, located, ticket.files, permission.ended, tally))
        if not tally.remaining.count and not self._rules.retain_cache:
            tally.remaining.add(await self._delete_cache(located, begun, lead, permission.of_cache()))
            tally.cache_deleted = not tally.remaining.count
        end = DeletionEnd(begun.record.run, begun.open, evidence.found, tally, lead, cause, interrupted=False)
        return await self.ends.record(end)

    async def _delete_cache(
        self, located: LocatedRun, begun: Begun, lead: Job, permission: Permission
    ) -> Sequence[Remaining]:
        try:
            if not await permission.stands_at_the_gate():
                return [Remaining(CACHE_FOLDER, permission.ended)]
            jobs = await evidence_jobs(self._bench, begun.open)
            without_lease = self._rules.delete_without_lease
            return await self._cache.delete(located, jobs, lead, permission.holds, without_lease=without_lease)
        except (EventStoreError, BlobError) as error:
            return [Remaining(CACHE_FOLDER, f"what belongs there can't be told: {error}")]

    async def _portions(
        self, located: LocatedRun, ticket: Ticket, evidence: FreshEvidence, permission: Permission, tally: Tally
    ) -> None:
        start = 0
        while start < ticket.file_count:
            files = next_portion(ticket.files[start : start + self._portion_files])
            permission.ended = await evidence.renew(files, partial(_ahead, ticket, start))
            permission.fresh_until = evidence.good_until(files)
            if not await permission.stands_at_the_gate():
                return
            await self._portion(located, ticket, files, permission, tally)
            start += len(files)
            if self._too_many(ticket, tally):
                permission.ended = "too many files are not what the ticket says"
                return

    async def interrupted(self, located: LocatedRun, lead: Job) -> DeletionEnd | None:
        """A deletion that a crash cut off, looked at to be recorded: nothing more is deleted. A cache folder that was
        to go too waits for a new ticket, unless it is gone. None: there is none. BlobError; errors of the log."""
        bench = self._bench
        record = await bench.log.run(located.identity)
        if record.open_cleanup is None:
            return None
        ticket_blob = record.open_cleanup.ticket_blob
        tally = await bench.threads.run(lambda: _what_was_left(located, read_copied(bench.blobs, ticket_blob)))
        if not tally.remaining.count and not self._rules.retain_cache:
            tally.cache_deleted = not await bench.threads.run(creation_path(located.folder).exists)
            if not tally.cache_deleted:
                tally.remaining.add([Remaining(CACHE_FOLDER, _CUT_OFF)])
        found = [
            run_events_pb2.CleanupEvidence(destination=d, job_id=j, position=p)
            for d, j, p in record.open_cleanup.evidence
        ]
        return DeletionEnd(record.run, record.open_cleanup, found, tally, lead, BY_ITSELF, interrupted=True)

    def _too_many(self, ticket: Ticket, tally: Tally, more: int = 0) -> bool:
        return self._rules.limits.too_many_refused(len(tally.refused) + more, ticket)

    async def _portion(
        self,
        located: LocatedRun,
        ticket: Ticket,
        files: Sequence[CopiedFile],
        permission: Permission,
        tally: Tally,
    ) -> None:
        heard, too_many = self._control.raise_if_stopped, partial(self._too_many, ticket, tally)
        try:
            delete = partial(
                delete_files,
                *(located.folder, files, permission.holds, heard, too_many),
                without_lease=self._rules.delete_without_lease,
            )
            done = await self._bench.threads.run(delete)
        except OSError as error:
            tally.refuse([Remaining(f.path, error.strerror or str(error)) for f in files])
            return
        tally.file_count += len(done.files)
        tally.byte_count += sum(file.size for file in done.files)
        tally.refuse(done.remaining)


def _ahead(ticket: Ticket, start: int) -> Sequence[CopiedFile]:
    return ticket.files[start : start + MOST_FILES]


def _see_what_is_left(located: LocatedRun, ticketed: Sequence[CopiedFile], ended: str, tally: Tally) -> None:
    known = InStep(ticketed)

    def why(path: bytes) -> str:
        if path in tally.refused:
            return ""
        return _LATER if known.at(path) is None else ended or "it vanished and came back"

    tally.remaining.join(left_over(located, why))


def _what_was_left(located: LocatedRun, ticketed: Sequence[CopiedFile]) -> Tally:
    """Of a deletion that nobody was left to tell of: what isn't there any more may be its doing or somebody else's."""
    tally = Tally()
    aside = {left.path: left for left in put_back_what_was_cut_off(located.folder, ticketed)}
    for file in ticketed:
        if file.path in aside or is_still_there(located.folder, file):
            tally.remaining.add([aside.pop(file.path, Remaining(file.path, _CUT_OFF))])
        else:
            tally.gone_count += 1
            tally.gone_byte_count += file.size
    tally.remaining.add(aside.values())
    known = InStep(ticketed)
    tally.remaining.join(left_over(located, lambda path: _LATER if known.at(path) is None else ""))
    return tally
