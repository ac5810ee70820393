"""How far running jobs are: written by transports' threads, heard by watchers at most four times a second."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from services.sync_engine.transfer.transport import ProgressPhase

UPDATE_SECONDS = 0.25
_RATE_WINDOW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ProgressSnapshot:
    """A moment of a job's present work. The rate covers the last few seconds; `remaining_seconds` None: unknown."""

    phase: ProgressPhase
    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int
    bytes_per_second: float
    current_file: str
    remaining_seconds: float | None


@dataclass(slots=True)
class _Counts:
    phase: ProgressPhase = ProgressPhase.PLANNING
    files_done: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    current: bytes = b""
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64))


class JobProgressMeter:
    """The `Progress` that one job's transport writes to. Tells the loop of news, but no oftener than it can be sent."""

    def __init__(self, tell: Callable[[], object]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._counts = _Counts()
        self._told = 0.0
        self._last_activity = time.monotonic()

    @property
    def last_activity(self) -> float:
        """Monotonic time when something moved last."""
        return self._last_activity

    def begin(self, phase: ProgressPhase, files_total: int, bytes_total: int) -> None:
        with self._lock:
            self._counts = _Counts(phase=phase, files_total=files_total, bytes_total=bytes_total)
            self._last_activity = time.monotonic()
            self._counts.samples.append((self._last_activity, 0))
        self._tell()

    def advance(self, files: int, nbytes: int, current: bytes) -> None:
        now = time.monotonic()
        with self._lock:
            counts = self._counts
            self._last_activity = now
            counts.files_done += files
            counts.bytes_done += nbytes
            counts.current = current
            if now - self._told < UPDATE_SECONDS:
                return
            self._told = now
            counts.samples.append((now, counts.bytes_done))
        self._tell()

    def snapshot(self) -> ProgressSnapshot:
        now = time.monotonic()
        with self._lock:
            counts = self._counts
            recent = [s for s in counts.samples if now - s[0] <= _RATE_WINDOW_SECONDS] or list(counts.samples)[-1:]
            rate = 0.0
            if recent and now > recent[0][0]:
                rate = (counts.bytes_done - recent[0][1]) / (now - recent[0][0])
            # A file that grew, or was read twice, is no more than the whole.
            files_done = min(counts.files_done, counts.files_total)
            bytes_done = min(counts.bytes_done, counts.bytes_total)
            left = counts.bytes_total - bytes_done
            return ProgressSnapshot(
                phase=counts.phase,
                files_done=files_done,
                files_total=counts.files_total,
                bytes_done=bytes_done,
                bytes_total=counts.bytes_total,
                bytes_per_second=rate,
                current_file=counts.current.decode(errors="replace"),
                remaining_seconds=left / rate if rate > 0 and counts.bytes_total else None,
            )


class ProgressBoard:
    """The meters of all jobs in work. Lives on the event loop; meters may be written to from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._meters: dict[str, JobProgressMeter] = {}
        self._listeners: list[Callable[[str], None]] = []

    def open(self, job_id: str) -> JobProgressMeter:
        meter = JobProgressMeter(lambda: self._loop.call_soon_threadsafe(self._news, job_id))
        self._meters[job_id] = meter
        return meter

    def close(self, job_id: str) -> None:
        self._meters.pop(job_id, None)

    def of(self, job_id: str) -> ProgressSnapshot | None:
        """None when nothing is going on."""
        meter = self._meters.get(job_id)
        return meter.snapshot() if meter else None

    def listen(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Calls `listener` with a job id when there is news. Returns the way to stop that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _news(self, job_id: str) -> None:
        for listener in tuple(self._listeners):
            listener(job_id)
