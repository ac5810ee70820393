"""The engine's hand on a running transfer: how it is ended, and the signs that it lives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

_SLOWEST_BYTES_PER_SECOND = 20 << 20


class StopReason(StrEnum):
    """Why the engine ends a transfer before its end."""

    ENGINE_STOPPING = "engine_stopping"
    GATE_CLOSED = "gate_closed"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    STALLED = "stalled"
    EQUIPMENT_PAUSED = "equipment_paused"
    LEASE_LOST = "lease_lost"
    GIVES_WAY = "gives_way"
    SECRET_LOST = "secret_lost"


class TransferStoppedError(Exception):
    """The engine asked for the end; nothing failed. What has landed stays and is not sent again."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(f"stopped: {reason}")
        self.reason = reason


class TransferControl:
    """The engine's hand on a running transfer. Any thread may call any method; the first reason stays."""

    def __init__(self, still_ours: Callable[[], bool] = lambda: True) -> None:
        """`still_ours` is asked before each step: where several engines share the log, one that stood still may have
        lost its job long before anything in it hears of that (LEASE_LOST)."""
        self._still_ours = still_ours
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._reason: StopReason | None = None
        self._winding_down = False
        self._last_sign = time.monotonic()
        self._quiet: dict[object, float] = {}

    @property
    def last_sign(self) -> float:
        """Monotonic time of the last sign of life that is no progress; it lies ahead in an announced silence."""
        with self._lock:
            return max((self._last_sign, *self._quiet.values()))

    def alive(self) -> None:
        """The transfer moves, though no byte of it counts: something is hashed or listed, or it pauses by itself."""
        self._last_sign = time.monotonic()

    def look(self) -> None:
        """As `alive`, and raises TransferStoppedError once `stop` was called."""
        self.alive()
        self.raise_if_stopped()

    @contextmanager
    def quiet(self, nbytes: int) -> Iterator[None]:
        """So many bytes are handled where nothing is heard of it: no sign of life is due before they would be through
        at 20 MiB/s."""
        key = object()
        with self._lock:
            self._quiet[key] = time.monotonic() + nbytes / _SLOWEST_BYTES_PER_SECOND
        try:
            yield
        finally:
            with self._lock:
                del self._quiet[key]
            self.alive()

    def wind_down(self, reason: StopReason) -> None:
        """No further file is started; those in work may be finished."""
        with self._lock:
            if self._reason is None:
                self._reason = reason
            self._winding_down = True

    def stop(self, reason: StopReason) -> None:
        """No further file is started and the one in work is left unfinished."""
        with self._lock:
            if self._reason is None:
                self._reason = reason
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """`stop` was called."""
        return self._stopped.is_set()

    @property
    def winding_down(self) -> bool:
        """No further file is to be started; those in work may be finished."""
        return self._winding_down

    def raise_before_file(self) -> None:
        """Raises TransferStoppedError once no further file is to be started."""
        self._look_whose_it_is()
        if self._reason is not None and (self._winding_down or self._stopped.is_set()):
            raise TransferStoppedError(self._reason)

    def raise_if_stopped(self) -> None:
        """Raises TransferStoppedError once `stop` was called, or the job is another engine's."""
        self._look_whose_it_is()
        if self._reason is not None and self._stopped.is_set():
            raise TransferStoppedError(self._reason)

    def _look_whose_it_is(self) -> None:
        if not self._still_ours():
            self.stop(StopReason.LEASE_LOST)

    def wait(self, seconds: float) -> None:
        """Pauses the calling thread; raises TransferStoppedError as soon as `stop` is called."""
        self._stopped.wait(seconds)
        self.alive()
        self.raise_if_stopped()
