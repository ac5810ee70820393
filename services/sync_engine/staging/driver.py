"""One program drives a staging root: the one that holds the lock in it (SPEC §8)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from libs.service_kit.telemetry import Logger
from libs.service_kit.work_threads import WorkThreads

LOCK_NAME = ".labferry-staging.lock"
_FIRST_TRY_SECONDS = 5.0
# Another user's program must be able to take the same lock; the file is empty.
_LOCK_FILE_MODE = 0o666


class StagingDriver:
    """Takes the lock when it can, and keeps it to the end. `problem` says why it hasn't got it."""

    def __init__(self, staging_root: Path, threads: WorkThreads, logger: Logger) -> None:
        self._root = staging_root
        self._threads = threads
        self._logger = logger
        # Taken in one thread and let go in another.
        self._lock = FileLock(staging_root / LOCK_NAME, timeout=0, mode=_LOCK_FILE_MODE, thread_local=False)
        self.problem = f"{staging_root} was not looked at yet"

    @property
    def driving(self) -> bool:
        return not self.problem

    async def begin(self) -> None:
        """A first try that no dead share can hold up for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_TRY_SECONDS):
                await self.try_again()

    async def try_again(self) -> bool:
        """Whether this program drives the root now."""
        if self.problem:
            problem = await self._threads.run(self._take)
            if problem and problem != self.problem:
                self._logger.warning("staging_root_not_driven", staging_root=str(self._root), problem=problem)
            self.problem = problem
        return self.driving

    def close(self) -> None:
        if self.driving:
            self._lock.release()

    def _take(self) -> str:
        if not self._root.is_dir():
            return f"there is no folder {self._root}"
        try:
            self._lock.acquire()
        except Timeout:
            return f"another program drives {self._root}"
        except OSError as error:
            return f"{self._root} can't be locked: {error.strerror}"
        return ""
