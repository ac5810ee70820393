"""A folder that keeps checkpoints: the service's own, or one that the database's owner doesn't rule."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from libs.event_log import checkpoint_file
from libs.event_log.checkpoint import SignedCheckpoint

_PATIENCE_SECONDS = 5.0


class CheckpointPlace:
    """Brings one series of checkpoints to one folder, in order. Whatever the folder does, nobody else is held up.

    `problem` says why it can't be written at present; empty: it can. `delivered` is the last number there; None before
    the folder was looked at.
    """

    def __init__(self, folder: Path, file_name: str, series: str) -> None:
        self.folder = folder
        self.file = folder / file_name
        self.problem = ""
        self.delivered: int | None = None
        self._series = series
        self._waiting: list[SignedCheckpoint] = []
        self._attempted: asyncio.Future[None] | None = None

    @property
    def behind(self) -> bool:
        """Whether a checkpoint waits to be brought there."""
        return bool(self._waiting)

    def want(self, checkpoints: Sequence[SignedCheckpoint]) -> None:
        """Has these brought by the next `bring`; those that are there already are passed over."""
        self._waiting += checkpoints

    async def look(self) -> None:
        """Finds out what the folder has. Never raises: `problem` says what is wrong."""
        await self._attempt(lambda: None)

    async def bring(self) -> None:
        """Writes what waits. Never raises: `problem` says why something still waits."""
        waiting = tuple(self._waiting)

        def write() -> None:
            lacking = [signed for signed in waiting if signed.checkpoint.number > (self.delivered or 0)]
            if lacking:
                checkpoint_file.append(self.file, lacking)
                self.delivered = lacking[-1].checkpoint.number

        if await self._attempt(write):
            del self._waiting[: len(waiting)]

    async def _attempt(self, write: Callable[[], None]) -> bool:
        def work() -> None:
            if self.delivered is None:
                # A missing folder is a storage that isn't mounted: it must not be made.
                if not self.folder.is_dir():
                    raise FileNotFoundError(2, "the folder isn't there", str(self.folder))
                self.delivered = checkpoint_file.last_number(self.file, self._series)
            write()

        try:
            await self._on_own_thread(work)
        except OSError as error:
            self.problem = error.strerror or str(error)
            return False
        self.problem = ""
        return True

    async def _on_own_thread(self, work: Callable[[], None]) -> None:
        """A dead network filesystem holds a thread for good: it gets one of its own, which no exit waits for."""
        earlier = self._attempted
        # Either its caller was cancelled, and it ends soon, or it hangs and is known to.
        if earlier is not None and not earlier.done() and (self.problem or not await _ended(earlier)):
            raise TimeoutError("an earlier attempt still hangs")
        outcome: concurrent.futures.Future[None] = concurrent.futures.Future()
        outcome.set_running_or_notify_cancel()

        def run() -> None:
            try:
                work()
            except OSError as error:
                outcome.set_exception(error)
            else:
                outcome.set_result(None)

        threading.Thread(target=run, name=f"checkpoints-{self.folder.name}", daemon=True).start()
        self._attempted = asyncio.wrap_future(outcome)
        # An attempt that nobody waits for any more may fail without anybody's hearing of it.
        self._attempted.add_done_callback(lambda late: late.cancelled() or late.exception())
        if not await _ended(self._attempted):
            raise TimeoutError(f"no answer in {_PATIENCE_SECONDS:g} seconds")
        self._attempted.result()


async def _ended(attempt: asyncio.Future[None]) -> bool:
    await asyncio.wait({attempt}, timeout=_PATIENCE_SECONDS)
    return attempt.done()
