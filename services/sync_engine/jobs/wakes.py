"""What wakes or ends the work of jobs beside their own events: pauses of equipment, and what happens to runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from labferry.events.v1 import run_events_pb2
from libs.event_log.projection import AppliedEvent
from services.sync_engine.jobs.gate_watch import GateWatch
from services.sync_engine.jobs.scheduler import Scheduler
from services.sync_engine.jobs.work_in_hand import WorkInHand
from services.sync_engine.transfer.transfer_control import StopReason


def pausing(scheduler: Scheduler, in_hand: WorkInHand) -> Callable[[str, bool], None]:
    """A paused equipment begins nothing, and what it has in work ends."""

    def changed(equipment_id: str, paused: bool) -> None:
        scheduler.pause_equipment(equipment_id, paused)
        if paused:
            for job_id in scheduler.jobs_in_work(equipment_id):
                in_hand.stop(job_id, StopReason.EQUIPMENT_PAUSED)

    return changed


def waking_by_run_events(scheduler: Scheduler, gates: GateWatch) -> Callable[[Sequence[AppliedEvent]], None]:
    """Overrides open and close gates."""

    def applied(batch: Sequence[AppliedEvent]) -> None:
        for event, payload in batch:
            if not event.stream.startswith("run-"):
                continue
            run = event.stream.removeprefix("run-")
            gates.run_changed(run)
            if not isinstance(payload, run_events_pb2.RunSyncStatusChanged):
                scheduler.wake_run(run)

    return applied
