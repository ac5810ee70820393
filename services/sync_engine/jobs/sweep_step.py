"""Removes what a cancelled job left at its destination under temporary names. Files with final names stay."""

from __future__ import annotations

from datetime import datetime

from labferry.events.v1 import job_events_pb2 as events
from services.sync_engine.jobs.job import Job
from services.sync_engine.jobs.retry import SWEEP_PAUSE
from services.sync_engine.jobs.work_in_hand import WorkInHand
from services.sync_engine.jobs.workbench import Workbench
from services.sync_engine.transfer.transfer_control import TransferStoppedError
from services.sync_engine.transfer.transport import TransferError


class SweepStep:
    """Takes a cancelled job to its end."""

    def __init__(self, bench: Workbench, in_hand: WorkInHand) -> None:
        self._bench = bench
        self._in_hand = in_hand

    async def take(self, job: Job) -> datetime | None:
        """Returns when to try again; None once it is swept, or when the configuration no longer names the place."""
        bench = self._bench
        destination = bench.destination(job)
        if destination is None or job.swept:
            return None
        if bench.watch.known_down(job.equipment_id, destination.name) is not None:
            return None
        control = bench.control_of(job)
        try:
            await self._in_hand.do(
                job.job_id,
                control,
                bench.board.open(job.job_id),
                lambda: destination.transport.sweep(job.job_id, keep_attempt=None, control=control),
            )
        except TransferStoppedError:
            # The engine ends; the next one sweeps.
            return None
        except TransferError as error:
            bench.logger.warning("sweep_failed", job=job.job_id, destination=destination.name, problem=error.message)
            return bench.clock() + SWEEP_PAUSE
        finally:
            bench.board.close(job.job_id)
        await bench.append(job, events.JobSwept())
        return None
