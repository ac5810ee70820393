"""What cleanups read in threads, here and at destinations: ended when it stalls, and all of it when the engine ends."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TypeVar

from services.sync_engine.jobs.progress import JobProgressMeter
from services.sync_engine.jobs.work_in_hand import WorkInHand
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl

T = TypeVar("T")


class CleanupWork:
    """The controls of all readings for cleanups."""

    def __init__(self, in_hand: WorkInHand) -> None:
        self._in_hand = in_hand
        self._numbers = count(1)
        self._controls: set[TransferControl] = set()
        self.stopping = False

    @property
    def end_seconds(self) -> float:
        """What was told to end may take so long before it is left behind."""
        return self._in_hand.end_seconds

    async def do(self, control: TransferControl, meter: JobProgressMeter, work: Callable[[], T]) -> T:
        """As `WorkInHand.do`; TransferStoppedError at once when the engine ends."""
        self._controls.add(control)
        try:
            if self.stopping:
                control.stop(StopReason.ENGINE_STOPPING)
            control.raise_if_stopped()
            return await self._in_hand.do(f"cleanup {next(self._numbers)}", control, meter, work)
        finally:
            self._controls.discard(control)

    def stop(self) -> None:
        """The engine ends."""
        self.stopping = True
        for control in self._controls:
            control.stop(StopReason.ENGINE_STOPPING)
