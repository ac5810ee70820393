"""Keeps every run's `creation.json` in step with the log: at once after each event, again after each obstacle."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence

from libs.event_log.projection import AppliedEvent
from libs.run_tree.creation_errors import CreationError, CreationMissingError
from libs.run_tree.creation_record import CreationRecord, SyncStatus
from libs.service_kit.errors import LabferryError
from libs.service_kit.telemetry import Logger
from services.sync_engine.engine_log import EngineLog
from services.sync_engine.runs.creation_projection import CreationFiles
from services.sync_engine.runs.location import LocatedRun, RunLocator
from services.sync_engine.runs.run import RunRecord

_RETRY_SECONDS = (1.0, 5.0, 30.0, 60.0)
_MOST_REMEMBERED = 10_000
# At the start the runs that changed last, which a crash may have left behind, come at full speed; then those who ask
# have three quarters of the machine.
_AT_FULL_SPEED = 500
_REST = 3.0

_Shown = tuple[SyncStatus | None, tuple[str | None, ...]]


class CreationKeeper:
    """Owns the task that writes files behind the log. A file that can't be written now is written later."""

    def __init__(self, log: EngineLog, files: CreationFiles, locator: RunLocator, logger: Logger) -> None:
        self._log = log
        self._files = files
        self._in_step: dict[str, _Shown] = {}
        self._locator = locator
        self._logger = logger
        self._due: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._retries: set[asyncio.TimerHandle] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, known_runs: Sequence[str]) -> None:
        """Looks at every run that the log knows, those that changed last first: a crash may have left some behind."""
        self._tasks = [
            asyncio.create_task(self._work(), name="creation files"),
            asyncio.create_task(self._look_at_all(known_runs), name="creation files at the start"),
        ]

    async def close(self) -> None:
        for retry in self._retries:
            retry.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def applied(self, batch: Sequence[AppliedEvent]) -> None:
        """The callback of the projections."""
        for event, _ in batch:
            if event.stream.startswith("run-"):
                self._due[event.stream.removeprefix("run-")] = 0
                self._wake.set()

    async def project(self, located: LocatedRun, read: CreationRecord | None = None) -> None:
        """Brings one file into step now. A file that can't be written is a warning here, and is tried again.

        `read`: the file as it was a moment ago, if it was read then.
        """
        try:
            await self._one(located, read)
        except CreationError as error:
            self._logger.warning("creation_file_behind", run=located.identity, problem=error.message)
            self._due.setdefault(located.identity, 0)
            self._wake.set()

    async def _one(self, located: LocatedRun, read: CreationRecord | None = None) -> None:
        turn = self._turns.setdefault(located.identity, asyncio.Lock())
        async with turn:
            logged = await self._log.run(located.identity)
            await self._files.project(located, read)
            if len(self._in_step) >= _MOST_REMEMBERED:
                self._in_step.clear()
            self._in_step[located.identity] = _what_the_file_holds(logged)

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                run = next(iter(self._due))
                tries = self._due.pop(run)
                try:
                    await self._try(run, tries)
                except LabferryError as error:
                    self._logger.warning("creation_file_gone", run=run, problem=error.message)

    async def _look_at_all(self, runs: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        gone: list[str] = []
        for number, run in enumerate(runs):
            began = loop.time()
            try:
                await self._try(run, 0)
            except LabferryError:
                gone.append(run)
            if number >= _AT_FULL_SPEED:
                await asyncio.sleep(_REST * (loop.time() - began))
        if gone:
            self._logger.warning("creation_files_gone", runs=len(gone), changed_last=gone[0])

    async def _try(self, run: str, tries: int) -> None:
        """LabferryError when the folder or its equipment is gone; the log keeps what is to be written, should it come
        back."""
        if self._in_step.get(run) == _what_the_file_holds(await self._log.run(run)):
            # Nothing that the file shows has changed since it was written.
            return
        try:
            await self._one(await asyncio.to_thread(self._locator.locate, run))
        except CreationError as error:
            if isinstance(error, CreationMissingError) and await self._is_cleaned(run):
                # It went with the run's cache folder, and doesn't come back.
                return
            self._logger.warning("creation_file_behind", run=run, problem=error.message)
            pause = _RETRY_SECONDS[min(tries, len(_RETRY_SECONDS) - 1)]
            self._again(run, tries + 1, pause)

    async def _is_cleaned(self, run: str) -> bool:
        return (await self._log.run(run)).sync_status is SyncStatus.CLEANED

    def _again(self, run: str, tries: int, pause: float) -> None:
        def now() -> None:
            self._retries.discard(handle)
            self._due.setdefault(run, tries)
            self._wake.set()

        handle = asyncio.get_running_loop().call_later(pause, now)
        self._retries.add(handle)


def _what_the_file_holds(logged: RunRecord) -> _Shown:
    return logged.sync_status, tuple(entry.id for entry in logged.entries)
