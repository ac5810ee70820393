"""CleanRun: deletes a run's local data when every interlock holds, or says which ones don't (SPEC §4, Cleanup)."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from labferry.events.v1 import job_events_pb2
from libs.event_log.store import LeaseLostError, RevisionConflictError
from libs.run_tree.creation_record import SyncStatus
from libs.service_kit.errors import UnavailableError
from services.sync_engine.cleanup.copy_elsewhere import look_whether_copies_are_elsewhere
from services.sync_engine.cleanup.copy_reading import CopyReading
from services.sync_engine.cleanup.deletion import Remaining
from services.sync_engine.cleanup.deletion_end import DeletionEnd, EndNotRecordedError, Outcome
from services.sync_engine.cleanup.evidence import FreshEvidence
from services.sync_engine.cleanup.execution import Execution
from services.sync_engine.cleanup.facts import CleanupLook
from services.sync_engine.cleanup.interlocks import (
    CleanupFacts,
    CleanupRules,
    Interlock,
    InterlockName,
    all_hold,
    standing_interlocks,
)
from services.sync_engine.cleanup.work import CleanupWork
from services.sync_engine.engine_log import BY_ITSELF, Cause, decided_anew, job_change
from services.sync_engine.jobs.job import Job, JobState
from services.sync_engine.jobs.read_model import latest_by_destination
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.transfer.transfer_control import TransferStoppedError

_TRIES = 3
_OF_FILES = frozenset({InterlockName.LOCAL_FILES_UNCHANGED, InterlockName.WRITERS_VISIBLE})
_COSTLY = _OF_FILES | {InterlockName.FRESH_READ_BACK, InterlockName.COPY_IS_ELSEWHERE}
_NOT_READ = Interlock(
    InterlockName.FRESH_READ_BACK, False, "every copy is read back once all the others hold", asked=False
)
_NOT_MARKED = Interlock(
    InterlockName.COPY_IS_ELSEWHERE, False, "every copy is marked, and looked for here, last of all", asked=False
)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What became of the wish. Counts are of files deleted; of a dry run, of files that would be. `before`: the run
    was cleaned when the wish came, and what has appeared since stays. `gone` are files of an earlier deletion that was
    cut off: who removed them is not known."""

    cleaned: bool
    interlocks: Sequence[Interlock] = ()
    file_count: int = 0
    byte_count: int = 0
    remaining: Sequence[Remaining] = ()
    before: bool = False
    gone_count: int = 0
    gone_byte_count: int = 0

    @property
    def read_data(self) -> bool:
        """Whether it came so far that the run's data was read, here or at its destinations."""
        return all_hold(i for i in self.interlocks if i.name not in _COSTLY)

    @property
    def outcome(self) -> Hashable:
        """Two wishes that came to the same have equal ones."""
        lacking = frozenset(i.name for i in self.interlocks if not i.satisfied)
        return self.cleaned, self.file_count, lacking, frozenset((left.path, left.why) for left in self.remaining)


@dataclass(slots=True)
class _Wish:
    """`begun`: the run is this wish's now; others wait for it."""

    cause: Cause
    begun: bool = False


class CleanRun:
    """The command, for operators and for the reaper. Owns the deletions that it began: a caller that goes away ends
    none of them, but takes back a wish whose turn hasn't come."""

    def __init__(
        self, bench: Workbench, rules: CleanupRules, execution: Execution, reading: CopyReading, work: CleanupWork
    ) -> None:
        self._bench = bench
        self._rules = rules
        self._execution = execution
        self._reading = reading
        self._work = work
        self._look = CleanupLook(bench, work)
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._tasks: set[asyncio.Task[Cleaned]] = set()

    async def look(self, run: str) -> Cleaned:
        """A dry run: every interlock as it is now. RunNotFoundError, EquipmentNotConfiguredError."""
        located = await self._bench.locate(run)
        if await self._is_cleaned(located):
            return await self._cleaned_before(located)
        facts = await self._look.facts(located)
        try:
            facts = await self._look.facts(located, await self._look.local(located, facts.copies))
        except TransferStoppedError as stopped:
            raise _ends() from stopped
        interlocks = [*standing_interlocks(facts, self._rules), _NOT_READ, _NOT_MARKED]
        ticket = facts.local.ticket
        return Cleaned(False, interlocks, ticket.file_count, ticket.byte_count)

    async def clean(self, run: str, cause: Cause) -> Cleaned:
        """Errors as `look`; UnavailableError while another engine works on the run, and when this one ends. What the
        engine does by itself gives way to transfers; what somebody asks for doesn't wait for them."""
        located, wish = await self._bench.locate(run), _Wish(cause)
        task = asyncio.create_task(self._in_turn(located, wish), name=f"cleanup of {run}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not wish.begun:
                task.cancel()
            task.add_done_callback(partial(self._tell, run))
            raise

    def _tell(self, run: str, task: asyncio.Task[Cleaned]) -> None:
        """Of a cleanup whose caller is gone."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._bench.logger.warning("cleanup_failed", run=run, problem=str(error))

    async def close(self) -> None:
        """Ends readings at once and deletions after the files in work; what these came to is recorded. What hangs is
        left behind, and deletes nothing any more."""
        self._execution.stop()
        self._reading.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._work.end_seconds)
        hanging = set(self._tasks)
        for task in hanging:
            task.cancel()
        if hanging:
            await asyncio.wait(hanging)

    async def _in_turn(self, located: LocatedRun, wish: _Wish) -> Cleaned:
        turn, cause = self._turns.setdefault(located.identity, asyncio.Lock()), wish.cause
        hurry = nullcontext() if cause == BY_ITSELF else self._reading.asked_for(located.identity)
        with hurry:
            async with turn:
                wish.begun = True
                return await self._clean_now(located, cause)

    async def _clean_now(self, located: LocatedRun, cause: Cause) -> Cleaned:
        if await self._is_cleaned(located):
            return await self._cleaned_before(located)
        lead = await self._lead(located)
        if lead is None:
            return await self._held(cause, await self._look.facts(located))
        try:
            async with self._bench.owned.over(lead.job_id, lead.equipment_id, in_slot=False) as mine:
                if not mine:
                    raise UnavailableError(f"another engine works on {located.path.equipment_id} now")
                return await self._clean(located, lead, cause)
        except LeaseLostError as lost:
            raise UnavailableError(f"another engine cleans {located.identity} now") from lost
        except TransferStoppedError as stopped:
            # A reading that was ended found nothing out.
            raise _ends() from stopped
        except EndNotRecordedError as held:
            return await self._record_later(held.end)

    async def _record_later(self, end: DeletionEnd) -> Cleaned:
        try:
            return _came_to(await self._execution.ends.record_under_new_lease(end))
        except EndNotRecordedError as held:
            raise _ends() from held

    async def _clean(self, located: LocatedRun, lead: Job, cause: Cause) -> Cleaned:
        bench = self._bench
        cut_off = await self._execution.interrupted(located, lead)
        if cut_off is not None and (ended := await self._execution.ends.record(cut_off)).cleaned:
            return _came_to(ended)
        if await self._is_cleaned(located):
            # Another engine finished it between the first look and the lease.
            return await self._cleaned_before(located)
        facts = await self._look.facts(located)
        if not all_hold(_besides_files(standing_interlocks(facts, self._rules))):
            return await self._held(cause, facts)
        facts = await self._look.facts(located, await self._look.local(located, facts.copies))
        if not all_hold(standing_interlocks(facts, self._rules)):
            return await self._held(cause, facts)
        evidence = self._evidence(located, facts, lead, cause)
        fresh = await evidence.read_whole()
        for _ in range(_TRIES):
            record = await bench.log.run(located.identity)
            # What was gathered before the reading is old by now; the files get their own last look.
            facts = await self._look.facts(located, facts.local)
            interlocks = [*standing_interlocks(facts, self._rules), fresh]
            if not all_hold(interlocks):
                return await self._held(cause, facts, fresh)
            interlocks.append(await look_whether_copies_are_elsewhere(bench, located))
            if not all_hold(interlocks):
                return await self._held(cause, facts, *interlocks[-2:])
            jobs = [copy.job for copy in facts.copies if copy.job is not None]
            if not evidence.is_of(jobs):
                break
            try:
                begun = await self._execution.begin(record, jobs, evidence, facts.local, lead, cause)
            except RevisionConflictError:
                # Something happened to the run or one of its jobs since it was looked at.
                continue
            done = await self._execution.carry_out(located, begun, facts.local.ticket, evidence, lead, cause)
            return _came_to(done, interlocks)
        raise UnavailableError(f"{located.identity} changes all the time")

    def _evidence(self, located: LocatedRun, facts: CleanupFacts, lead: Job, cause: Cause) -> FreshEvidence:
        places = {place.name: place for place in self._bench.destinations[located.path.equipment_id]}

        async def look_again() -> str:
            now = standing_interlocks(await self._look.facts(located, facts.local), self._rules)
            now.append(await look_whether_copies_are_elsewhere(self._bench, located))
            return "; ".join(i.detail for i in now if not i.satisfied)

        copies = [(copy.job, places[copy.destination]) for copy in facts.copies if copy.job is not None]
        return FreshEvidence(self._bench, self._reading, copies, lead, look_again, gives_way=cause == BY_ITSELF)

    async def _held(
        self, cause: Cause, facts: CleanupFacts, fresh: Interlock = _NOT_READ, elsewhere: Interlock = _NOT_MARKED
    ) -> Cleaned:
        """Names the interlocks in the state of each verified job; nothing is recorded when they are named there."""
        interlocks = [*standing_interlocks(facts, self._rules), fresh, elsewhere]
        lacking = [i for i in _besides_unasked(interlocks) if not i.satisfied]
        held = job_events_pb2.JobCleanupHeld(
            interlocks=[i.name.value for i in lacking], detail="; ".join(i.detail for i in lacking)
        )
        names = ", ".join(held.interlocks)
        for copy in facts.copies:
            job = copy.job
            if job is None or job.state not in (JobState.VERIFIED, JobState.CLEANUP_ELIGIBLE):
                continue
            if job.cleanup_hold is not None and job.cleanup_hold.detail.startswith(f"{names}: "):
                continue
            await decided_anew(partial(self._record_held, job.job_id, held, cause))
        return Cleaned(False, interlocks)

    async def _record_held(self, job_id: str, held: job_events_pb2.JobCleanupHeld, cause: Cause) -> None:
        present = await self._bench.log.job(job_id)
        if present is not None and present.state in (JobState.VERIFIED, JobState.CLEANUP_ELIGIBLE):
            await self._bench.log.append(cause, job_change(present, held))

    async def _lead(self, located: LocatedRun) -> Job | None:
        """The job whose lease stands for the run: that of the first destination that has one."""
        latest = latest_by_destination(await self._bench.jobs_of_run(located.identity))
        places = self._bench.destinations[located.path.equipment_id]
        return next((latest[p.name] for p in places if p.name in latest), None)

    async def _is_cleaned(self, located: LocatedRun) -> bool:
        record = await self._bench.log.run(located.identity)
        if record.sync_status is not SyncStatus.CLEANED or record.open_cleanup is not None:
            return False
        latest = latest_by_destination(await self._bench.jobs_of_run(located.identity))
        # A copy at a destination that wasn't configured when the data here went stays as it was proven: there is
        # nothing left here that it could be compared with.
        places = self._bench.destinations[located.path.equipment_id]
        return any(p.name in latest and latest[p.name].state is JobState.CLEANED for p in places)

    async def _cleaned_before(self, located: LocatedRun) -> Cleaned:
        """Nothing more of such a run is deleted: what came later may be nowhere else, stays, and is told.
        UnavailableError when the engine ends meanwhile."""
        try:
            left = await self._look.appeared(located)
        except TransferStoppedError as stopped:
            raise _ends() from stopped
        return Cleaned(not left.count, remaining=left.first, before=True)


def _ends() -> UnavailableError:
    return UnavailableError("the engine ends")


def _came_to(done: Outcome, interlocks: Sequence[Interlock] = ()) -> Cleaned:
    return Cleaned(
        *(done.cleaned, interlocks, done.file_count, done.byte_count, done.remaining),
        gone_count=done.gone_count,
        gone_byte_count=done.gone_byte_count,
    )


def _besides_files(interlocks: Sequence[Interlock]) -> Sequence[Interlock]:
    """Those that can be told without reading the run's files."""
    return [i for i in interlocks if i.name not in _OF_FILES]


def _besides_unasked(interlocks: Sequence[Interlock]) -> Sequence[Interlock]:
    """What was not looked at because others don't hold is not what holds the cleanup back: of the costly ones only the
    first that doesn't hold counts."""
    asked = [i for i in interlocks if i.name not in _COSTLY]
    for interlock in (i for i in interlocks if i.name in _COSTLY):
        if not all_hold(asked):
            break
        asked.append(interlock)
    return asked
