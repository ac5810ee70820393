"""Replays a log into a shadow of the read models and compares the two, whole rows in primary key order."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from libs.event_log.event import EventTypes
from libs.event_log.projection_failure import ProjectionStoppedError, failure_of, without_room
from libs.event_log.read_model import Projection, ReadModelWriter
from libs.event_log.store import EventStore, LogUnavailableError

T = TypeVar("T")
Row = tuple[Any, ...]
SAMPLES = 10
_FETCH_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class ProjectionReport:
    """What a replay found. `samples` are the first few differences, one line each."""

    name: str
    events_applied: int
    differences: int
    samples: Sequence[str]


class OnThread(Protocol):
    """Runs blocking work on the owner's threads."""

    def __call__(self, work: Callable[..., T], *arguments: object) -> asyncio.Future[T]: ...


def shadow_path(database: Path) -> Path:
    """Where a rebuild of these read models puts its own, until they are swapped."""
    return database.with_name(database.name + ".rebuild")


class Rebuild:
    """One replay. The owner sets `abandoned` when nobody wants it any more."""

    def __init__(
        self,
        store: EventStore,
        event_types: EventTypes,
        database: Path,
        projections: Sequence[Projection],
        on_thread: OnThread,
    ) -> None:
        self.shadow = ReadModelWriter(shadow_path(database), event_types, projections)
        self.abandoned = False
        self._store = store
        self._projections = projections
        self._on_thread = on_thread
        self._position: int | None = None
        self._applied = 0

    async def replay(self, upto: int) -> None:
        """Goes on with the replay to a position. ProjectionStoppedError when a projection fails at an event,
        ReadModelsFullError without room."""
        if self._position is None:
            await self._on_thread(self.shadow.drop)
            try:
                self._position = await self._on_thread(self.shadow.open, self._store.store_id, upto)
            except sqlite3.Error as refusal:
                if (full := without_room(refusal)) is not None:
                    raise full from refusal
                raise
        async for page in self._store.read(self._position, upto=upto):
            if self.abandoned:
                raise LogUnavailableError("the rebuild of the read models was given up")
            applying = self._on_thread(self.shadow.apply, page)
            await asyncio.wait({applying})
            if (error := applying.exception()) is not None:
                if (full := without_room(error)) is not None:
                    raise full from error
                raise ProjectionStoppedError(failure_of(self.shadow, page, error)) from error
            self._position = page[-1].position
            self._applied += len(page)

    async def compare(self, current: ReadModelWriter) -> Sequence[ProjectionReport]:
        """How the read models in use differ from the replayed ones; both must stand at the same position."""
        return [
            await self._on_thread(_compare_projection, projection, self._applied, current, self.shadow)
            for projection in self._projections
        ]

    async def discard(self) -> None:
        """Removes the shadow, if it wasn't put in place."""
        await self._on_thread(self.shadow.drop)


def _compare_projection(
    projection: Projection, applied: int, current: ReadModelWriter, shadow: ReadModelWriter
) -> ProjectionReport:
    differences, samples = 0, list[str]()
    for table in projection.tables:
        for line in _table_differences(table, current, shadow):
            differences += 1
            if len(samples) < SAMPLES:
                samples.append(line)
    return ProjectionReport(projection.name, applied, differences, samples)


def _table_differences(table: str, current: ReadModelWriter, shadow: ReadModelWriter) -> Iterator[str]:
    key = _primary_key(shadow.connection, table)
    replayed = _rows(shadow.connection, table, key)
    try:
        yield from _merge(table, _rows_in_use(current, table, key), replayed, len(key))
    except _UnreadableError as error:
        yield f"{table}: the read model in use can't be read: {error}"


class _UnreadableError(Exception):
    """The read model in use is damaged, which is one more difference."""


def _rows_in_use(current: ReadModelWriter, table: str, key: Sequence[str]) -> Iterator[Row]:
    try:
        yield from _rows(current.connection, table, key)
    except sqlite3.Error as error:
        raise _UnreadableError(str(error)) from error


def _primary_key(connection: sqlite3.Connection, table: str) -> Sequence[str]:
    columns = connection.execute("SELECT name, pk FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (table,))
    return [name for name, _ in columns.fetchall()] or ["rowid"]


def _rows(connection: sqlite3.Connection, table: str, key: Sequence[str]) -> Iterator[Row]:
    """Rows as their key's values followed by all their columns, in an order that Python sees the same way."""
    keys = ", ".join(_quoted(name) if name != "rowid" else name for name in key)
    order = ", ".join(f"{_quoted(name)} COLLATE BINARY" if name != "rowid" else name for name in key)
    cursor = connection.execute(f"SELECT {keys}, * FROM {_quoted(table)} ORDER BY {order}")
    while rows := cursor.fetchmany(_FETCH_ROWS):
        yield from rows


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _merge(table: str, in_use: Iterator[Row], replayed: Iterator[Row], width: int) -> Iterator[str]:
    mine, theirs = next(in_use, None), next(replayed, None)
    while mine is not None or theirs is not None:
        if mine is not None and (theirs is None or _sort_key(mine[:width]) < _sort_key(theirs[:width])):
            yield f"{table} {mine[:width]}: in use, but not in the replay"
            mine = next(in_use, None)
        elif theirs is not None and (mine is None or _sort_key(theirs[:width]) < _sort_key(mine[:width])):
            yield f"{table} {theirs[:width]}: in the replay, but not in use"
            theirs = next(replayed, None)
        elif mine is not None and theirs is not None:
            if _typed(mine) != _typed(theirs):
                yield f"{table} {mine[:width]}: in use {mine[width:]}, in the replay {theirs[width:]}"
            mine, theirs = next(in_use, None), next(replayed, None)


def _typed(row: Row) -> Sequence[tuple[type, Any]]:
    # 1, 1.0 and True are equal to Python, but not the same in a row.
    return [(type(value), value) for value in row]


def _sort_key(values: Row) -> tuple[tuple[int, Any], ...]:
    """SQLite's order of values of mixed types: NULL, numbers, text, blobs."""
    return tuple(_sort_key_of(value) for value in values)


def _sort_key_of(value: Any) -> tuple[int, Any]:
    if value is None:
        return (0, 0)
    if isinstance(value, int | float):
        return (1, value)
    if isinstance(value, str):
        return (2, value.encode("utf-8", "surrogatepass"))
    return (3, value)
