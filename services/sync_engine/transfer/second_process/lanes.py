"""The lanes of one piece of work: opened when they are first of use, and shared by its threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import NamedTuple, Self

from services.sync_engine.transfer.filesystem_kind import Filesystem
from services.sync_engine.transfer.second_process.lane import Lane, LaneBrokenError
from services.sync_engine.transfer.second_process.messages import LaneRequest
from services.sync_engine.transfer.second_process.process import SecondProcess
from services.sync_engine.transfer.transfer_control import TransferControl

_LANES = 3
_THREADS_BESIDE = 2
"""Threads that work in this process meanwhile."""
WITH_LANES = _LANES + _THREADS_BESIDE
"""Threads for a piece of work that has lanes: one waits at each of them."""
_STOP_SECONDS = 2.0


class OpenLane(NamedTuple):
    """A lane, and the folder that the second process was given for it."""

    lane: Lane
    folder: int


class Lanes:
    """For the threads of one piece of work; they have come back with their lanes when the block ends."""

    def __init__(
        self, second: SecondProcess, request: LaneRequest, folder: Callable[[], int], control: TransferControl
    ) -> None:
        """`folder` is asked for an open one of each lane's own, or the same for all, which stays the caller's."""
        self._second = second
        self._request = request
        self._folder = folder
        self._control = control
        self._lock = threading.Lock()
        self._idle: deque[OpenLane] = deque()
        self._to_open = _LANES

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._idle:
            self._idle.pop().lane.end()

    def take(self) -> OpenLane | None:
        """One that is idle; None when there is none."""
        with suppress(IndexError):
            return self._idle.pop()
        with self._lock:
            if not self._to_open or not self._second.is_ready():
                return None
            self._to_open -= 1
        folder = self._folder()
        lane = self._second.lane(self._request, folder)
        return None if lane is None else OpenLane(lane, folder)

    def ask(self, taken: OpenLane, message: bytes) -> bytes | None:
        """The answer, and the lane is idle again. None when none came: the lane is no more, and the second process
        neither, if it only hangs."""
        try:
            taken.lane.send(message)
            answer = taken.lane.receive(self._patience())
        except LaneBrokenError:
            taken.lane.close()
            self._second.give_up()
            return None
        self._idle.append(taken)
        return answer

    def _patience(self) -> Callable[[], None]:
        latest = time.monotonic() + self._second.patience_seconds

        def waiting() -> None:
            nonlocal latest
            now = time.monotonic()
            # What hangs is ended here, and no fault of the destination's.
            self._control.alive()
            if self._control.stopped or self._control.winding_down:
                latest = min(latest, now + _STOP_SECONDS)
            if now >= latest:
                raise LaneBrokenError("it doesn't answer")

        return waiting


@contextmanager
def lanes_for(
    second: SecondProcess | None,
    filesystem: Filesystem,
    files: int,
    request: LaneRequest,
    folder: Callable[[], int],
    control: TransferControl,
) -> Iterator[Lanes | None]:
    """Lanes for a piece of work of so many files; None where they'd be of little use: on few files, and where the time
    goes into waiting for a server."""
    if second is None or files < second.fewest_files or not filesystem.is_local:
        yield None
        return
    with Lanes(second, request, folder, control) as lanes:
        yield lanes
