"""The lock that every program takes before it changes a cache file (FORMATS §2)."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout, lock_descriptor, unlock_descriptor

from libs.run_tree.beneath import folder_beneath, status_beneath

DEFAULT_LOCK_TIMEOUT: Final = 30.0
# Another user's program must be able to take the same lock; the file is empty.
_LOCK_FILE_MODE = 0o666
_LOCK_POLL_SECONDS = 0.005
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def record_lock(path: Path, timeout: float) -> Iterator[int]:
    """Holds `<path>.lock` as ExLab-Wizard's writers do, and gives the open folder that it lies in: what is read and
    written there is what was locked. filelock.Timeout after `timeout` seconds; OSError when it can't be made or opened,
    or when the folder was taken away meanwhile."""
    with folder_beneath(path.parent) as folder, _locked(folder, f"{path.name}.lock", timeout):
        if not os.path.samestat(os.fstat(folder), status_beneath(path.parent)):
            # An instrument moved its run away, and another one is in its place.
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
        yield folder


@contextmanager
def _locked(folder: int, name: str, timeout: float) -> Iterator[None]:
    ends = time.monotonic() + timeout
    while True:
        descriptor, is_new = _open_lock(folder, name)
        try:
            try:
                locked = lock_descriptor(descriptor, blocking=False)
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
                break
            # Who deleted the file meanwhile made the name free for another: a lock on it would exclude nobody.
            if locked and os.fstat(descriptor).st_nlink > 0:
                try:
                    yield
                finally:
                    # Closing alone would leave it to a child that was forked at this moment.
                    unlock_descriptor(descriptor)
                return
        finally:
            os.close(descriptor)
        if time.monotonic() >= ends:
            raise Timeout(name)
        time.sleep(_LOCK_POLL_SECONDS)
    # A file system without such locks, as Lustre often is: the package has another way there, by the name alone.
    if is_new:
        os.unlink(name, dir_fd=folder)
    by_name = FileLock(f"/proc/self/fd/{folder}/{name}", mode=_LOCK_FILE_MODE, poll_interval=_LOCK_POLL_SECONDS)
    with by_name.acquire(timeout):
        yield


def _open_lock(folder: int, name: str) -> tuple[int, bool]:
    """The open lock file, and whether it was made for that."""
    while True:
        try:
            return os.open(name, _OPEN, dir_fd=folder), False
        except FileNotFoundError:
            pass
        try:
            descriptor = os.open(name, _OPEN | os.O_CREAT | os.O_EXCL, _LOCK_FILE_MODE, dir_fd=folder)
        except FileExistsError:
            # Another program was quicker.
            continue
        os.fchmod(descriptor, _LOCK_FILE_MODE)
        return descriptor, True
