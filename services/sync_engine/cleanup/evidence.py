"""Fresh evidence for one cleanup: every copy is read back whole, and what is too old when its turn comes once more.

So a run may be of any size: no file goes on evidence that is more than an hour old, and none before every file of every
copy was found to match.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from google.protobuf.message import Message

from labferry.events.v1 import run_events_pb2
from libs.event_log.blob_store import BlobError
from services.sync_engine.audits.portion_reading import files_scrubbed
from services.sync_engine.audits.portions import next_portion
from services.sync_engine.cleanup.copy_reading import CopyReading, in_parallel
from services.sync_engine.cleanup.interlocks import Interlock, InterlockName
from services.sync_engine.cleanup.ticket import TICKET_SECONDS
from services.sync_engine.engine_log import BY_ITSELF, decided_anew, job_change
from services.sync_engine.jobs.failed_pass import failed_pass
from services.sync_engine.jobs.file_list import read_copied
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.job_history import JobHistoryError
from services.sync_engine.jobs.sealed_records import SealedRecords
from services.sync_engine.jobs.verify_step import (
    Occasion,
    Verification,
    inconclusive,
    is_inconclusive,
    read_back_whole,
    skipped_oversize,
    verification_of,
    verify_report,
)
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.destination import Destination
from services.sync_engine.transfer.transport import CopiedFile, FailureKind, TransferError, VerifyOutcome

_LEFT_SECONDS = 300.0
"""A portion's deletion begins only while its evidence is good for so long still."""

_MOST_READINGS = 3


class ReadTimes:
    """When each file of a copy was read back last, on the clock that nobody can set."""

    def __init__(self) -> None:
        self._last: list[bytes] = []
        self._since: list[float] = []
        self._again: tuple[bytes, bytes, float] | None = None

    def note(self, portion: Sequence[CopiedFile], since: float) -> None:
        """A portion of the whole reading; they come in the order of their paths."""
        self._last.append(portion[-1].path)
        self._since.append(since)

    def note_again(self, portion: Sequence[CopiedFile], since: float) -> None:
        """A portion that was read once more: the only one that counts besides the whole reading."""
        self._again = (portion[0].path, portion[-1].path, since)

    def of(self, path: bytes) -> float:
        """Of a file that the readings covered."""
        if self._again is not None and self._again[0] <= path <= self._again[1]:
            return self._again[2]
        return self._since[bisect_left(self._last, path)]


@dataclass(slots=True)
class _Copy:
    job: Job
    place: Destination
    files: Sequence[CopiedFile] = ()
    times: ReadTimes = field(default_factory=ReadTimes)
    records: SealedRecords = field(default_factory=lambda: SealedRecords(True))

    def good_until(self, files: Sequence[CopiedFile]) -> float:
        return min(self.times.of(file.path) for file in files) + TICKET_SECONDS


class FreshEvidence:
    """Of one run's copies. `lead` is the job under whose lease it is recorded; `look_again` names what holds the
    deletion back by now (empty: nothing); what `gives_way` waits for transfers. `found`: the events that say so."""

    def __init__(
        self,
        bench: Workbench,
        reading: CopyReading,
        copies: Sequence[tuple[Job, Destination]],
        lead: Job,
        look_again: Callable[[], Awaitable[str]],
        *,
        gives_way: bool,
    ) -> None:
        self._bench = bench
        self._reading = reading
        self._copies = [_Copy(job, place) for job, place in copies]
        self._lead = lead
        self._look_again = look_again
        self._gives_way = gives_way
        self._began: datetime = bench.clock()
        self.found: list[run_events_pb2.CleanupEvidence] = []

    async def read_whole(self) -> Interlock:
        """Reads every copy back, one beside the other. TransferStoppedError."""
        found = await in_parallel([self._whole(copy) for copy in self._copies])
        wrong, unchecked = [], []
        for copy, one in zip(self._copies, found, strict=True):
            if is_inconclusive(one.outcome):
                # What is only too large to be checked didn't rot.
                unchecked.append(f"{copy.place.name}: {skipped_oversize(one.outcome)}")
                continue
            await self._record(copy, one.event)
            if not one.report.passed:
                wrong.append(copy.place.name)
            elif not copy.records.sound:
                unchecked.append(f"{copy.place.name}: {copy.records.note}")
        detail = "every copy was read back and matches"
        if wrong:
            detail = f"reading back failed at {', '.join(wrong)}; the run's problems say what was found"
        elif unchecked:
            detail = f"not every copy could be read back whole, with what was sealed beside it; {'; '.join(unchecked)}"
        return Interlock(InterlockName.FRESH_READ_BACK, not wrong and not unchecked, detail)

    def is_of(self, jobs: Sequence[Job]) -> bool:
        """Whether it is these jobs' copies that were read."""
        return [copy.job.job_id for copy in self._copies] == [job.job_id for job in jobs]

    def good_until(self, files: Sequence[CopiedFile]) -> float:
        """The monotonic time from which on what was read of these files is too old to allow anything."""
        return min(copy.good_until(files) for copy in self._copies)

    async def renew(self, files: Sequence[CopiedFile], ahead: Callable[[], Iterable[CopiedFile]]) -> str:
        """Reads copies back again where what is known of `files` is too old by now, and with them what lies `ahead` as
        far as a portion goes. Why nothing more may go; empty: nothing speaks against it. TransferStoppedError."""
        for _ in range(_MOST_READINGS):
            soon = self._bench.monotonic() + _LEFT_SECONDS
            old = [copy for copy in self._copies if copy.good_until(files) < soon]
            if not old:
                return ""
            if held := await self._look_again():
                return held
            portion = next_portion(ahead())
            matched = await in_parallel([self._again(copy, portion) for copy in old])
            wrong = [copy.place.name for copy, good in zip(old, matched, strict=True) if not good]
            if wrong:
                return f"the copy at {', '.join(wrong)} was found not to match meanwhile"
        return "reading back takes longer than what was read is good for"

    async def _whole(self, copy: _Copy) -> Verification:
        bench, job = self._bench, copy.job
        try:
            copy.files = await bench.threads.run(lambda: read_copied(bench.blobs, job.files_blob or ""))
            outcome = await self._reading.whole(job, copy.place, copy.files, copy.times.note, gives_way=self._gives_way)
            if outcome is None:
                raise JobHistoryError(f"job {job.job_id} proved a copy without a file")
            if outcome.proven:
                copy.records = await self._reading.records(job, copy.place, leased=job.job_id == self._lead.job_id)
                outcome = copy.records.beside(outcome)
            return await verification_of(bench, job, copy.files, outcome, Occasion.CLEANUP, self._began)
        except BlobError as error:
            return inconclusive(bench, job, Occasion.CLEANUP, TransferError(FailureKind.INTERNAL, str(error)))
        except TransferError as error:
            return inconclusive(bench, job, Occasion.CLEANUP, error)

    async def _again(self, copy: _Copy, portion: Sequence[CopiedFile]) -> bool:
        bench, job = self._bench, copy.job
        began = bench.clock()
        try:
            read = await self._reading.portion(job, copy.place, portion, copy.files, gives_way=self._gives_way)
        except TransferError as error:
            await self._record(copy, inconclusive(bench, job, Occasion.CLEANUP, error).event)
            return False
        outcome = read.outcome
        # A portion may hold symlinks alone, which are not counted.
        if not outcome.expected == outcome.hashed == outcome.matched or not await bench.threads.run(
            lambda: read_back_whole(outcome, portion)
        ):
            await self._record(copy, await bench.threads.run(lambda: self._failed(copy, portion, outcome, began)))
            return False
        scrubbed = await bench.threads.run(lambda: files_scrubbed(bench.blobs, outcome, began, self._began))
        await self._record(copy, scrubbed)
        copy.times.note_again(portion, read.since)
        return True

    def _failed(self, copy: _Copy, portion: Sequence[CopiedFile], outcome: VerifyOutcome, began: datetime) -> Message:
        report = verify_report(copy.job, outcome, self._bench.clock())
        report.passed = False
        event = failed_pass(self._bench.blobs, portion, outcome, report, Occasion.CLEANUP)
        event.begun_time.FromDatetime(began)
        event.oldest_evidence_time.FromDatetime(self._began)
        return event

    async def _record(self, copy: _Copy, event: Message) -> None:
        bench, job_id = self._bench, copy.job.job_id

        async def attempt() -> int:
            present = await bench.log.job(job_id) or copy.job
            fence = bench.owned.fence(self._lead.job_id)
            return (await bench.log.append(BY_ITSELF, job_change(present, event), fence=fence)).events[0].position

        position = await decided_anew(attempt)
        self.found.append(run_events_pb2.CleanupEvidence(destination=copy.place.name, job_id=job_id, position=position))
