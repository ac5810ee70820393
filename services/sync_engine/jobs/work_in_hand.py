"""Blocking work of a job in a thread: ended when it stalls, and left behind when even that doesn't end it (SPEC §4)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.jobs.progress import JobProgressMeter
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl, TransferStoppedError
from services.sync_engine.transfer.transport import FailureKind, TransferError

T = TypeVar("T")

_MOST_END_SECONDS = 10.0


class DoInThread(Protocol):
    """What `work` gives or raises, in a thread; as `WorkInHand.do`."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]: ...


class WorkInHand:
    """The controls of all transfers and verifications of this engine, by job.

    Work that was told to end may take as long as a stall, or ten seconds, before it is left behind.
    """

    def __init__(self, threads: WorkThreads, stall_seconds: float) -> None:
        self._threads = threads
        self._stall_seconds = stall_seconds
        self.end_seconds = min(_MOST_END_SECONDS, stall_seconds)
        self._controls: dict[str, TransferControl] = {}
        self._given_up = asyncio.Event()

    def stop(self, job_id: str, reason: StopReason) -> None:
        """Ends a job's work at its next block. Nothing happens when it has none."""
        control = self._controls.get(job_id)
        if control is not None:
            control.stop(reason)

    def wind_down(self) -> None:
        """The engine ends: no further file is started; those in work are finished."""
        for control in self._controls.values():
            control.wind_down(StopReason.ENGINE_STOPPING)

    def stop_all(self) -> None:
        """The engine ends now."""
        for control in self._controls.values():
            control.stop(StopReason.ENGINE_STOPPING)

    def give_up(self) -> None:
        """What hasn't ended yet is left behind."""
        self._given_up.set()

    async def do(self, job_id: str, control: TransferControl, meter: JobProgressMeter, work: Callable[[], T]) -> T:
        """What `work` gives or raises. TransferError NETWORK when no byte moved for the stall timeout.

        Work that doesn't end when it is told to goes on in its thread without a way to record anything: its attempt is
        over, and whatever it still does stays in that attempt's own incoming folder.
        """
        self._controls[job_id] = control
        task = asyncio.create_task(self._threads.run(work), name=f"work of job {job_id}")
        task.add_done_callback(_retrieved)
        given_up = asyncio.create_task(self._given_up.wait())
        try:
            await self._attend(task, given_up, control, meter)
            if not task.done():
                control.raise_if_stopped()
            return task.result()
        finally:
            del self._controls[job_id]
            given_up.cancel()
            if not task.done():
                control.stop(StopReason.ENGINE_STOPPING)
                task.cancel()

    async def _attend(
        self, task: asyncio.Task[T], given_up: asyncio.Task[bool], control: TransferControl, meter: JobProgressMeter
    ) -> None:
        left = self._stall_seconds
        while True:
            await asyncio.wait({task, given_up}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return
            if given_up.done():
                control.stop(StopReason.ENGINE_STOPPING)
                return
            idle = time.monotonic() - max(meter.last_activity, control.last_sign)
            left = self._stall_seconds - idle
            if left > 0:
                continue
            control.stop(StopReason.STALLED)
            await asyncio.wait({task, given_up}, timeout=self.end_seconds, return_when=asyncio.FIRST_COMPLETED)
            if task.done() and not isinstance(task.exception(), TransferStoppedError):
                return
            raise TransferError(FailureKind.NETWORK, f"not a byte moved for {self._stall_seconds:.0f} s")


def _retrieved(task: asyncio.Task[T]) -> None:
    """Work that was left behind has nobody to hear how it ended."""
    if not task.cancelled():
        task.exception()
