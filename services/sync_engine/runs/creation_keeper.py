"""Keeps every run's `creation.json` in step with the log: at once after each event, again after each obstacle."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Sequence

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
        self._task: asyncio.Task[None] | None = None

    def start(self, known_runs: Iterable[str]) -> None:
        """Begins with every run that the log knows: what a crash left undone is done first."""
        self._due.update(dict.fromkeys(known_runs, 0))
        self._wake.set()
        self._task = asyncio.create_task(self._work(), name="creation files")

    async def close(self) -> None:
        for retry in self._retries:
            retry.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

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
                await self._try(run, tries)

    async def _try(self, run: str, tries: int) -> None:
        if self._in_step.get(run) == _what_the_file_holds(await self._log.run(run)):
            # Nothing that the file shows has changed since it was written.
            return
        try:
            await self._one(await asyncio.to_thread(self._locator.locate, run))
        except LabferryError as error:
            # The folder or its equipment is gone; the log keeps what is to be written, should it come back.
            self._logger.warning("creation_file_gone", run=run, problem=error.message)
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
