"""The lock that every program takes before it changes a cache file (FORMATS §2)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
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
    be made or opened, or when the folder was taken away meanwhile."""
    folder = _identity(path.parent)
    lock = _lock(f"{path}.lock")
    lock.acquire(timeout=timeout)
    try:
        if _identity(path.parent) != folder:
            # The package makes missing folders: an instrument that moved its run away would find another in its place.
            _remove_what_was_made(path)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
        yield
    finally:
        lock.release()


@lru_cache(maxsize=256)
def _lock(path: str) -> FileLock:
    """Each thread holds it for itself. Making one takes longer than taking it."""
    return FileLock(path, mode=_LOCK_FILE_MODE, poll_interval=_LOCK_POLL_SECONDS)


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _remove_what_was_made(path: Path) -> None:
    # What isn't empty was made by somebody else.
    with suppress(OSError):
        os.unlink(f"{path}.lock")
        os.rmdir(path.parent)
        os.rmdir(path.parent.parent)
