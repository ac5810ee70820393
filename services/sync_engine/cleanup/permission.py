"""Whether a deletion that was begun may go on: asked before each portion, and right before each name goes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from libs.event_log.store import EventStoreError
from services.sync_engine.cleanup.standing_gate import StandingGate
from services.sync_engine.jobs.job import Job, JobState
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.runs.run import OpenCleanup, RunRecord
from services.sync_engine.transfer.transfer_control import TransferControl

ENGINE_ENDS = "the engine ends"


@dataclass(frozen=True, slots=True)
class Begun:
    """A ticket that stands in the log; `record` is the run with it."""

    record: RunRecord
    open: OpenCleanup


class Permission:
    """Lives as long as one deletion, on the loop that made it; `ended` says why it is over, empty: it isn't.

    `fresh_until`: monotonic time at which the evidence of the files in work is too old; None: it is made as they go.
    """

    def __init__(self, bench: Workbench, begun: Begun, lead: Job, control: TransferControl) -> None:
        self._bench = bench
        self._begun = begun
        self._lead = lead
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._gate = StandingGate(bench, begun.record.run)
        self._stood_at = -1
        self.fresh_until: float | None = None
        self.ended = ""

    def of_cache(self) -> Permission:
        """For what goes last, whose evidence is made as it goes."""
        anew = Permission(self._bench, self._begun, self._lead, self._control)
        anew._gate = self._gate
        return anew

    async def stands(self) -> bool:
        """Once it doesn't, it never does again. A log that can't be asked allows nothing."""
        try:
            self.ended = self.ended or await self._reason_to_end()
        except EventStoreError as error:
            self.ended = log_is_silent(error)
        return not self.ended

    async def stands_at_the_gate(self) -> bool:
        """As `stands`, and the gate is open: a look at the run's creation.json, worth it once a portion."""
        self.ended = self.ended or await self._gate.refusal()
        return await self.stands()

    def holds(self) -> bool:
        """As `stands`, for the thread that deletes; what no log can tell is asked last."""
        if self._own_reason():
            return False
        # Where nothing was appended at all, nothing happened to the run or its copies.
        unchanged = self._bench.log.store.head == self._stood_at
        if not unchanged and not asyncio.run_coroutine_threadsafe(self.stands(), self._loop).result():
            return False
        return not self._own_reason()

    async def _reason_to_end(self) -> str:
        if own := self._own_reason():
            return own
        head = self._bench.log.store.head
        if (await self._bench.log.run(self._begun.record.run)).revision != self._begun.record.revision:
            return "something happened to the run meanwhile"
        jobs = await evidence_jobs(self._bench, self._begun.open)
        doubted = [job.destination for job in jobs if job.state is not JobState.CLEANUP_ELIGIBLE]
        # A pass that fails, whoever asked for it, takes its job out of this state.
        if doubted:
            return f"the copy at {', '.join(doubted)} was found not to match meanwhile"
        self._stood_at = head
        return ""

    def _own_reason(self) -> str:
        if self._control.stopped:
            return ENGINE_ENDS
        if not self._bench.owned.holds(self._lead.job_id):
            return "another engine may have the run by now"
        if self.fresh_until is not None and self._bench.monotonic() > self.fresh_until:
            return "the ticket expired"
        return ""


def log_is_silent(error: EventStoreError) -> str:
    """Why nothing more may go when nobody can say what has happened meanwhile."""
    return f"the log can't be asked any more: {error}"


async def evidence_jobs(bench: Workbench, opened: OpenCleanup) -> Sequence[Job]:
    """The jobs whose proofs a ticket names, as they are now."""
    jobs = [await bench.log.job(job_id) for job_id in dict.fromkeys(job_id for _, job_id, _ in opened.evidence)]
    return [job for job in jobs if job is not None]
