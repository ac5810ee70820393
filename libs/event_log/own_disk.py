"""What the disk under a service's own files refuses, as errors of its log: the work waits, and is done again."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from libs.event_log.store import LogDiskFullError, LogUnavailableError

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def on_own_disk() -> Iterator[None]:
    """Around what writes them. LogDiskFullError without room, LogUnavailableError for any other OSError."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise LogDiskFullError(f"the service's own disk is full: {error.strerror}") from error
        raise LogUnavailableError(f"the service's own files can't be written: {error}") from error
