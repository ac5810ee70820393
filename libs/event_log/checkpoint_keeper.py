"""Signs the end of the log at intervals and brings the checkpoints to places outside the database."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from libs.event_log import checkpoint_file
from libs.event_log.checkpoint import Checkpoint, SignedCheckpoint, checkpoint_time, sign
from libs.event_log.checkpoint_key import CheckpointKey, load_checkpoint_key
from libs.event_log.checkpoint_place import CheckpointPlace
from libs.event_log.checkpoint_verification import ExpectedCheckpoints
from libs.event_log.store import EventStore, EventStoreError, LogClosedError, LogDamagedError, PositionBeyondHeadError
from libs.service_kit.settings import CheckpointSettings
from libs.service_kit.telemetry import Logger

RETRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class CheckpointSeries:
    """What this service's state folder has of its checkpoints: the row that it goes on with."""

    name: str
    signed: Sequence[SignedCheckpoint]


def own_series(folder: Path, service: str, store_id: str) -> CheckpointSeries:
    """The newest series in the state folder, or a new one. OSError when the folder can't be read. Blocks."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = [CheckpointSeries(uuid.uuid4().hex[:12], ())]
    for path in checkpoint_file.files_of_log(folder, service, store_id):
        lines = [line for line in checkpoint_file.read_lines(path) if isinstance(line, SignedCheckpoint)]
        if lines:
            found.append(CheckpointSeries(lines[-1].checkpoint.series, lines))
    return max(found, key=lambda series: series.signed[-1].checkpoint.position if series.signed else 0)


class CheckpointKeeper:
    """Owns one task. Made by `keeping_checkpoints`."""

    def __init__(
        self,
        store: EventStore,
        service: str,
        key: CheckpointKey,
        series: CheckpointSeries,
        state_folder: Path,
        settings: CheckpointSettings,
        logger: Logger,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._key = key
        self._series = series.name
        self._settings = settings
        self._logger = logger
        self._clock = clock
        name = checkpoint_file.file_name(service, store.store_id, series.name)
        self.service = service
        self.places = [CheckpointPlace(f, name, series.name) for f in (state_folder, *settings.folders)]
        for place in self.places:
            place.want(series.signed)
        self._number = series.signed[-1].checkpoint.number if series.signed else 0
        self._position = series.signed[-1].checkpoint.position if series.signed else 0
        self._reported: dict[CheckpointPlace, str] = {}
        self._turn = asyncio.Lock()
        self._looked = asyncio.Event()
        self._ending = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="checkpoints")

    @property
    def key(self) -> CheckpointKey:
        """What signs for this service."""
        return self._key

    @property
    def trusted(self) -> frozenset[bytes]:
        """Raw public keys whose checkpoints count."""
        return self._key.trusted

    async def expected(self) -> Sequence[ExpectedCheckpoints]:
        """What a check of the log has to find at each place; known as soon as each was looked at, or can't be."""
        await self._looked.wait()
        return [ExpectedCheckpoints(place.folder, self._series, place.delivered or 0) for place in self.places]

    async def newest(self, limit: int) -> Sequence[SignedCheckpoint]:
        """The newest checkpoints in the state folder, the newest first. OSError when they can't be read."""

        def read() -> Sequence[SignedCheckpoint]:
            own = self.places[0].file
            lines = checkpoint_file.read_lines(own) if own.exists() else ()
            signed = deque((line for line in lines if isinstance(line, SignedCheckpoint)), maxlen=limit)
            return tuple(reversed(signed))

        return await asyncio.to_thread(read)

    async def make(self, position: int | None = None) -> SignedCheckpoint:
        """Signs the log at a position (absent: the head) and has it brought to every place.

        LogDamagedError for a log that is known to be damaged, PositionBeyondHeadError, LogClosedError.
        """
        async with self._turn:
            signed = await self._sign(self._store.head if position is None else position)
            for place in self.places:
                place.want((signed,))
            await self._bring()
        return signed

    async def close(self) -> None:
        """Signs the end of the log once more, and ends. The log must still be open."""
        self._ending.set()
        await asyncio.wait({self._task})
        self._task.result()

    async def _run(self) -> None:
        async with self._turn:
            await asyncio.gather(*(place.look() for place in self.places))
            self._number = max(self._number, *(place.delivered or 0 for place in self.places))
            self._looked.set()
            await self._bring()
        ending = asyncio.create_task(self._ending.wait())
        try:
            with suppress(LogClosedError):
                # Whatever was recorded since the last one, perhaps before a crash, is signed at once.
                await self._make_if_new()
                while not self._ending.is_set():
                    await self._when_due(ending)
                await self._make_if_new()
            async with self._turn:
                await self._bring()
        finally:
            ending.cancel()

    async def _when_due(self, ending: asyncio.Task[bool]) -> None:
        """Waits for the next event, then for enough of them or long enough; brings what waits to a place meanwhile."""
        retry = RETRY_SECONDS if any(place.behind for place in self.places) else None
        if not await self._wait_beyond(self._position, ending, retry):
            if not self._ending.is_set():
                async with self._turn:
                    await self._bring()
            return
        enough = self._position + self._settings.every_events
        await self._wait_beyond(enough - 1, ending, self._settings.every_minutes * 60)
        await self._make_if_new()

    async def _wait_beyond(self, position: int, ending: asyncio.Task[bool], timeout: float | None) -> bool:
        moved = asyncio.create_task(self._store.wait_beyond(position))
        try:
            await asyncio.wait({moved, ending}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            return moved.done() and moved.result() > position
        finally:
            moved.cancel()

    async def _make_if_new(self) -> None:
        if self._store.head <= self._position:
            return
        try:
            await self.make()
        except LogClosedError:
            raise
        except EventStoreError as error:
            self._logger.error("checkpoint_not_made", problem=str(error))
            # What the log lacks now won't be signed before something new is recorded.
            self._position = self._store.head

    async def _sign(self, position: int) -> SignedCheckpoint:
        if (damage := self._store.damage) is not None:
            raise LogDamagedError(damage.position, damage.detail)
        digest: bytes | None = None
        async for page in self._store.read(position - 1, upto=position):
            digest = page[-1].hash
        if digest is None:
            raise PositionBeyondHeadError(position, self._store.head)
        self._number += 1
        self._position = max(self._position, position)
        checkpoint = Checkpoint(
            self._store.store_id, position, digest, checkpoint_time(self._clock()), self._series, self._number
        )
        return sign(checkpoint, self._key.private)

    async def _bring(self) -> None:
        await asyncio.gather(*(place.bring() for place in self.places))
        for place in self.places:
            if place.problem != self._reported.get(place, ""):
                self._reported[place] = place.problem
                if place.problem:
                    self._logger.warning("checkpoints_not_written", file=str(place.file), problem=place.problem)
                else:
                    self._logger.info("checkpoints_written_again", file=str(place.file))


@asynccontextmanager
async def keeping_checkpoints(
    store: EventStore, service: str, state_dir: Path, settings: CheckpointSettings, logger: Logger
) -> AsyncIterator[CheckpointKeeper]:
    """Checkpoints as long as the context lasts, and one at its end. CheckpointKeyError; OSError of the state folder."""
    folder = state_dir / "checkpoints"
    key = await asyncio.to_thread(load_checkpoint_key, state_dir / "keys")
    series = await asyncio.to_thread(own_series, folder, service, store.store_id)
    keeper = CheckpointKeeper(store, service, key, series, folder, settings, logger)
    try:
        yield keeper
    finally:
        await keeper.close()
