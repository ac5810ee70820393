"""The clock for what must not grow old unnoticed: leases and evidence."""

from __future__ import annotations

import time


def boot_seconds() -> float:
    """Seconds since the machine was started. Nobody can set it, and unlike `time.monotonic` it goes on while the
    machine sleeps: a laptop that was closed for a night has no fresh evidence, and no lease, when it is opened."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
