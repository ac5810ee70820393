"""Keeps read models up with the log, and lets callers read their own writes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from libs.event_log.event import EventTypes, RecordedEvent
from libs.event_log.head_watch import HeadWatch
from libs.event_log.projection_failure import (
    ProjectionFailure,
    ProjectionStoppedError,
    ReadModelsFullError,
    failure_of,
    without_room,
)
from libs.event_log.read_model import AppliedEvent, Projection, ReadModelWriter, put_in_place, remove_database
from libs.event_log.read_model_readers import ReadModelReaders
from libs.event_log.rebuild import ProjectionReport, Rebuild, shadow_path
from libs.event_log.store import EventStore, EventStoreError, LogClosedError, LogUnavailableError

__all__ = [
    "AppliedEvent",
    "Projection",
    "ProjectionFailure",
    "ProjectionReport",
    "ProjectionRunner",
    "ProjectionStoppedError",
]

T = TypeVar("T")
AppliedCallback = Callable[[Sequence[AppliedEvent]], None]
StoppedCallback = Callable[[ProjectionFailure], None]

_READERS = 3
_UNAVAILABLE_PAUSE = 1.0


class ProjectionRunner:
    """Applies the log's events to the projections, all in one file and one transaction, and serves their readers."""

    def __init__(
        self,
        store: EventStore,
        event_types: EventTypes,
        database: Path,
        projections: Sequence[Projection],
        *,
        stopped: StoppedCallback | None = None,
    ) -> None:
        """`stopped` is called once whenever the read models stop, with where and why."""
        self._store = store
        self._event_types = event_types
        self._database = database
        self._projections = projections
        self._writer = ReadModelWriter(database, event_types, projections)
        self._watch = HeadWatch(0)
        self._threads = ThreadPoolExecutor(_READERS + 2, thread_name_prefix="read-models")
        self._readers = ReadModelReaders(database, _READERS, self._threads)
        self._callbacks: list[AppliedCallback] = []
        self._announced = 0
        self._turn = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None
        self._rebuild: Rebuild | None = None
        self._rebuilding: asyncio.Task[Sequence[ProjectionReport]] | None = None
        self._closed = False
        self._stopped = stopped
        self.failure: ProjectionFailure | None = None

    @property
    def names(self) -> Sequence[str]:
        return [projection.name for projection in self._projections]

    @property
    def position(self) -> int:
        """Position of the last event in the read models. The head less this is their lag."""
        return self._watch.head

    async def start(self) -> None:
        """Opens the read models, replays what they lack, and follows the log from then on.

        A projection that fails is told by `failure`, not by an exception. LogUnavailableError for a log that can't be
        read at the moment, ReadModelsFullError without room for them.
        """
        # A process that was killed in the middle of a rebuild left it there.
        await self._on_thread(remove_database, shadow_path(self._database))
        self._watch.resume(await self._on_thread(self._writer.open, self._store.store_id, self._store.head))
        await self._apply_upto(self._store.head, announce=False)
        await self._readers.open()
        self._following = asyncio.create_task(self._follow(), name="projections-follow")

    async def reached(self, position: int) -> None:
        """Waits until the event at `position` is in the read models. ProjectionStoppedError if that won't happen,
        ReadModelsFullError while they have no room."""
        await self._watch.wait_beyond(position - 1)

    async def query(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What `read` finds once everything recorded before this call is applied. Runs it off the loop, read-only."""
        await self.reached(self._store.head)
        return await self._readers.run(read)

    def on_applied(self, callback: AppliedCallback) -> Callable[[], None]:
        """Has `callback` called on the loop with each batch of live events after its commit; returns how to end that.

        Live means after `start`: what was recorded earlier is found by a query.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    async def rebuild(self, dry_run: bool) -> Sequence[ProjectionReport]:
        """Replays the log into a file beside the one in use, compares them and, unless `dry_run`, puts it in place.

        Readers go on meanwhile. ProjectionStoppedError when the replay itself fails; the file in use then stays.
        """
        while self._rebuilding is not None and not self._rebuilding.done():
            await asyncio.wait({self._rebuilding})
        if self._closed:
            raise LogClosedError("the read models are closed")
        rebuild = Rebuild(self._store, self._event_types, self._database, self._projections, self._on_thread)
        self._rebuild = rebuild
        # A task of its own: a caller that goes away must not leave a file half swapped.
        self._rebuilding = asyncio.create_task(self._run_rebuild(rebuild, dry_run), name="projections-rebuild")
        try:
            return await asyncio.shield(self._rebuilding)
        except asyncio.CancelledError:
            rebuild.abandoned = True
            raise

    async def close(self) -> None:
        """Stops following and closes the file. May be called again."""
        if self._closed:
            return
        self._closed = True
        if self._rebuild is not None:
            self._rebuild.abandoned = True
        if self._rebuilding is not None:
            await asyncio.wait({self._rebuilding})
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
        self._watch.end(lambda: LogClosedError("the read models are closed"))
        await self._readers.close()
        self._readers.refuse()
        await asyncio.to_thread(self._threads.shutdown)
        self._writer.close()

    async def _follow(self) -> None:
        try:
            while self.failure is None:
                await self._store.wait_beyond(self.position)
                async with self._turn:
                    reached = await self._try_apply_upto(self._store.head)
                if not reached:
                    await asyncio.sleep(_UNAVAILABLE_PAUSE)
        except LogClosedError:
            self._watch.end(lambda: LogClosedError("the event log is closed"))

    async def _try_apply_upto(self, head: int) -> bool:
        """Whether the log could be read, and the read models written. What can't be for the moment stops nothing: a
        database may restart, somebody makes room."""
        try:
            await self._apply_upto(head, announce=True)
        except LogClosedError:
            raise
        except LogUnavailableError:
            return False
        except ReadModelsFullError as full:
            words = str(full)
            self._watch.end(lambda: ReadModelsFullError(words))
            return False
        return True

    async def _apply_upto(self, head: int, *, announce: bool) -> None:
        try:
            async for page in self._store.read(self.position, upto=head):
                await self._apply_page(page, announce)
                if self.failure is not None:
                    return
        except (LogUnavailableError, ReadModelsFullError):
            raise
        except EventStoreError as error:
            self._stop(ProjectionFailure("event log", self.position + 1, "", str(error)))

    async def _apply_page(self, page: Sequence[RecordedEvent], announce: bool) -> None:
        applying = self._on_thread(self._writer.apply, page)
        # Looking at the outcome instead of catching it keeps any projection's error from ending the service.
        await asyncio.wait({applying})
        error = applying.exception()
        if error is None:
            self._watch.resume(page[-1].position)
            if announce:
                self._announce(applying.result())
            return
        if (full := without_room(error)) is not None:
            raise full from error
        failure = failure_of(self._writer, page, error)
        good = [event for event in page if event.position < failure.position]
        if good:
            await self._apply_page(good, announce)
        if self.failure is None:
            self._stop(failure)

    def _stop(self, failure: ProjectionFailure) -> None:
        self.failure = failure
        self._watch.end(lambda: ProjectionStoppedError(failure))
        if self._stopped is not None:
            self._stopped(failure)

    def _announce(self, applied: Sequence[AppliedEvent]) -> None:
        # After a rebuild some events may come by a second time.
        fresh = [pair for pair in applied if pair[0].position > self._announced]
        if not fresh:
            return
        self._announced = fresh[-1][0].position
        loop = asyncio.get_running_loop()
        for callback in self._callbacks:
            # Not called from here, so that an error in it ends nothing but itself.
            loop.call_soon(callback, fresh)

    async def _run_rebuild(self, rebuild: Rebuild, dry_run: bool) -> Sequence[ProjectionReport]:
        try:
            await rebuild.replay(self.position)
            async with self._turn:
                await rebuild.replay(self.position)
                reports = await rebuild.compare(self._writer)
                if self.failure is not None:
                    # Whether the event that stopped the read models can be applied now.
                    await rebuild.replay(self._store.head)
                if not dry_run:
                    await self._swap(rebuild)
        finally:
            await rebuild.discard()
        return reports

    async def _swap(self, rebuild: Rebuild) -> None:
        await self._readers.close()
        try:
            await self._on_thread(_swap_files, self._writer, rebuild.shadow, self._database)
            opened = await self._on_thread(self._writer.open, self._store.store_id, self._store.head)
            await self._readers.open()
        except (OSError, sqlite3.Error) as error:
            # Nothing can be read now; another rebuild, or the next start, makes the file again.
            self._watch.resume(0)
            failure = ProjectionFailure("read models", 1, "", f"{type(error).__name__}: {error}")
            self._stop(failure)
            raise ProjectionStoppedError(failure) from error
        self._watch.resume(opened)
        if self.failure is not None:
            self.failure = None
            self._following = asyncio.create_task(self._follow(), name="projections-follow")

    def _on_thread(self, work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _swap_files(writer: ReadModelWriter, shadow: ReadModelWriter, database: Path) -> None:
    writer.close()
    shadow.close()
    put_in_place(shadow.path, database)
