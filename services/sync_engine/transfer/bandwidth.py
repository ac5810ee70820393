"""How fast a transfer may go, by the clock on the wall (SPEC §4), and the brake that keeps it there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from datetime import time as time_of_day
from typing import Final

from services.sync_engine.transfer.transfer_control import TransferControl

_KIB: Final = 1024
# A limit that begins or ends takes effect within this time, and no burst is longer.
_REACTION_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class BandwidthWindow:
    """Days (0 = Monday) and hours at which the limit holds: begin ≤ t < end, the workstation's local time."""

    days: frozenset[int]
    begin: time_of_day
    end: time_of_day

    def __post_init__(self) -> None:
        if not self.begin < self.end or not self.days:
            raise ValueError("a bandwidth window needs a day, and must end after it begins")

    def holds(self, local: datetime) -> bool:
        """True when the limit holds at this local time."""
        return local.weekday() in self.days and self.begin <= local.time() < self.end


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """`bandwidth` of a transport: megabits a second and when they hold. No limit without `upload_mbps`."""

    upload_mbps: float | None = None
    schedule: tuple[BandwidthWindow, ...] = ()

    def kib_per_second(self, local: datetime) -> int | None:
        """The limit at this local time; None when there is none."""
        if self.upload_mbps is None:
            return None
        if self.schedule and not any(window.holds(local) for window in self.schedule):
            return None
        return max(1, round(self.upload_mbps * _KIB / 8))


UNLIMITED: Final = Bandwidth()


class SharedBandwidth:
    """A destination's limit, in equal parts for the jobs that send there at the same time. Any thread may use it."""

    def __init__(self, whole: Bandwidth) -> None:
        self._whole = whole
        self._lock = threading.Lock()
        self._jobs = 0

    @contextmanager
    def sending(self) -> Iterator[None]:
        """While the block lasts, one job more has its part; those of the others change at once."""
        with self._lock:
            self._jobs += 1
        try:
            yield
        finally:
            with self._lock:
                self._jobs -= 1

    def kib_per_second(self, local: datetime) -> int | None:
        """What each job may send at this local time; None when there is no limit."""
        whole = self._whole.kib_per_second(local)
        return None if whole is None else max(1, whole // max(1, self._jobs))


def local_now() -> datetime:
    """The workstation's local time."""
    return datetime.now().astimezone()


class BandwidthBrake:
    """A token bucket that all threads of a transfer share; the limit is looked up anew with every take."""

    def __init__(
        self,
        bandwidth: Bandwidth,
        *,
        local_time: Callable[[], datetime] = local_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bandwidth = bandwidth
        self._local_time = local_time
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._tokens = 0.0
        self._filled_at = monotonic()

    @property
    def never_limits(self) -> bool:
        """At no time of any day."""
        return self._bandwidth.upload_mbps is None

    def portion(self, wanted: int) -> int:
        """How many bytes to move in one go: `wanted`, or less where a slow limit must be able to end soon."""
        rate = self._bytes_per_second()
        return wanted if rate is None else max(1, min(wanted, int(rate * _REACTION_SECONDS)))

    def take(self, nbytes: int, control: TransferControl) -> None:
        """Returns when so many bytes may move. Raises TransferStoppedError when the transfer is stopped meanwhile."""
        control.raise_if_stopped()
        if self.never_limits:
            return
        remaining = float(nbytes)
        while remaining > 0:
            remaining, pause = self._drain(remaining)
            if remaining > 0:
                control.wait(pause)

    def _drain(self, wanted: float) -> tuple[float, float]:
        with self._lock:
            rate = self._bytes_per_second()
            now = self._monotonic()
            elapsed, self._filled_at = now - self._filled_at, now
            if rate is None:
                self._tokens = 0.0
                return 0.0, 0.0
            self._tokens = min(self._tokens + elapsed * rate, rate * _REACTION_SECONDS)
            taken = min(self._tokens, wanted)
            self._tokens -= taken
            left = wanted - taken
            return left, min(left / rate, _REACTION_SECONDS)

    def _bytes_per_second(self) -> float | None:
        kib = self._bandwidth.kib_per_second(self._local_time())
        return None if kib is None else float(kib * _KIB)
