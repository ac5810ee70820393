"""Making several files durable at once.

One fsync after the other asks the disk once for each file to write out its cache. Handed to the kernel together, many
of them share one such request; each still answers for its own file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from services.sync_engine.transfer.kernel_queue import Operation, Request, handle_together


def fsync_together(descriptors: Sequence[int]) -> list[OSError | None]:
    """Makes open files durable; of each what the system said, None if it is. Any thread may call it."""
    if len(descriptors) < 2:
        return [_fsync(descriptor) for descriptor in descriptors]
    results = handle_together([Request(descriptor, Operation.SYNC) for descriptor in descriptors])
    # Of what the kernel didn't take so, the plain call says what is the matter.
    return [
        _fsync(descriptor) if result is None else _error(result)
        for descriptor, result in zip(descriptors, results, strict=True)
    ]


def _error(result: int) -> OSError | None:
    return OSError(-result, os.strerror(-result)) if result else None


def _fsync(descriptor: int) -> OSError | None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        return error
    return None
