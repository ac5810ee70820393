"""One process a log: a lock beside the file, held as long as the process lives."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from libs.event_log.store import LogInUseError, LogLocationError
from libs.service_kit.network_filesystem import network_filesystem


class LogLock:
    """Held from construction until `release`. LogInUseError when another process, or this one, holds it already."""

    def __init__(self, log_path: Path) -> None:
        self._path = log_path.with_name(log_path.name + ".lock")
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LogLocationError(f"the event log's lock {self._path} can't be opened: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise LogInUseError(
                f"the event log {log_path} is in use by another process{f' (pid {holder})' if holder else ''};"
                " one process keeps a log"
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise LogLocationError(f"the event log {log_path} can't be locked: {error.strerror}") from error
        os.ftruncate(descriptor, 0)
        # The number only makes a message clearer; a full disk must not keep the log from being opened.
        with suppress(OSError):
            os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Lets another process have the log. The lock file stays: without it two processes could hold two locks."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def refuse_network_filesystem(folder: Path, mount_table: str | None = None) -> None:
    """LogLocationError when `folder` lies on a filesystem whose locks and shared memory SQLite can't rely on."""
    kind = network_filesystem(folder, mount_table)
    if kind is not None:
        raise LogLocationError(
            f"the event log can't be kept in {folder}: it lies on a network filesystem ({kind}); choose a local disk"
        )
