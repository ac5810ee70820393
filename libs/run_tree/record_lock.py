"""The lock that every program takes before it changes a cache file (FORMATS §2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock

DEFAULT_LOCK_TIMEOUT: Final = 30.0
# Another user's program must be able to take the same lock; the file is empty.
_LOCK_FILE_MODE = 0o666
_LOCK_POLL_SECONDS = 0.005


@contextmanager
def record_lock(path: Path, timeout: float) -> Iterator[None]:
    """Holds `<path>.lock` as ExLab-Wizard's writers do. filelock.Timeout after `timeout` seconds; OSError when it can't
    be made or opened."""
    lock = FileLock(f"{path}.lock", timeout=timeout, mode=_LOCK_FILE_MODE, poll_interval=_LOCK_POLL_SECONDS)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
