"""Queues staged runs that are all there, and says what keeps one from being queued."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from labferry.events.v1 import staging_events_pb2 as events
from libs.run_tree.creation_errors import CreationError
from libs.run_tree.ingest_record import StagingState
from libs.service_kit.errors import LabferryError
from services.sync_engine.engine_log import BY_ITSELF
from services.sync_engine.errors import EquipmentNotConfiguredError
from services.sync_engine.jobs.enqueue import Enqueue, EnqueueOutcome
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.staging.staged_run import StagedRun, StagingHold
from services.sync_engine.staging.steps import StagingSteps
from services.sync_engine.transfer.transport import TransferError
from services.sync_engine.validation.finding import Finding
from services.sync_engine.validation.presync_gate import refusal
from services.sync_engine.validation.walk import WalkError

AGAIN_SECONDS = 30.0
"""A run that can't be queued is looked at again this often, and at each override."""
_MOST_AGAIN_SECONDS = 3600.0


@dataclass(slots=True)
class _Retry:
    """When to try again, on the loop's clock, and how long that was set ahead."""

    at: float
    pause: float


class StagedQueueing:
    """Takes runs from `complete` to `sync_queued`, through the same gate as any other."""

    def __init__(self, bench: Workbench, enqueue: Enqueue, steps: StagingSteps) -> None:
        self._bench = bench
        self._enqueue = enqueue
        self._steps = steps
        self._retries: dict[str, _Retry] = {}

    async def take(self, record: StagedRun, *, at_once: bool = False) -> StagedRun:
        """The run after a try, or as it was when its time hasn't come. `at_once`: something happened to it."""
        now = asyncio.get_running_loop().time()
        retry = self._retries.setdefault(record.run, _Retry(now, AGAIN_SECONDS))
        if now < retry.at and not at_once:
            return record
        retry.at = now + retry.pause
        try:
            record = await self._try(record, retry)
        except EquipmentNotConfiguredError as error:
            return await self._steps.hold(record.run, StagingHold.EQUIPMENT_NOT_CONFIGURED, _sentence(error.message))
        except (LabferryError, CreationError, WalkError, TransferError) as error:
            return await self._steps.hold(record.run, StagingHold.UNUSABLE, _sentence(error.message))
        if record.state is not StagingState.COMPLETE:
            self._retries.pop(record.run, None)
        return record

    async def _try(self, record: StagedRun, retry: _Retry) -> StagedRun:
        run = record.run
        located = await self._bench.locate(run)
        if not located.is_staged:
            detail = f"A run of this path lies in the local_root of {located.equipment.id} too: {located.folder}."
            return await self._steps.hold(run, StagingHold.ELSEWHERE, detail)
        was_blocked = record.held is not None and record.held.hold is StagingHold.BLOCKED
        if was_blocked:
            view = await self._bench.gate.look(run, self._bench.clock())
            if not view.is_open:
                return await self._steps.hold(run, StagingHold.BLOCKED, _sentence(refusal(view)))
        enqueued = await self._enqueue.run(run, BY_ITSELF, None)
        if enqueued.outcome is EnqueueOutcome.BLOCKED:
            if was_blocked:
                # Not by what the gate sees: asking again and again would fill the log with the same refusal.
                retry.pause = min(2 * retry.pause, _MOST_AGAIN_SECONDS)
            return await self._steps.hold(run, StagingHold.BLOCKED, _blocked(enqueued.blocking))
        queued = events.StagingQueued(run=run, job_ids=[job.job_id for job in enqueued.jobs], host=self._steps.host)
        return await self._steps.step(run, StagingState.SYNC_QUEUED, queued)


def _blocked(findings: Sequence[Finding]) -> str:
    classes = sorted({finding.rule.value for finding in findings})
    count = len(findings)
    return f"{count} hard finding{'s' if count != 1 else ''} without an active override: {', '.join(classes)}."


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
