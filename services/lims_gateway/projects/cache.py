"""The gateway's own copy of the projects: one SQLite file, replaced as a whole at each refresh."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiosqlite
import msgspec

from libs.service_kit.telemetry import Logger
from services.lims_gateway.projects.errors import CacheUnusableError
from services.lims_gateway.projects.paging import Page, PageKey, ProjectFilter, cut_page, search_text
from services.lims_gateway.projects.policy import CacheState
from services.lims_gateway.projects.project import Project, ProjectRows, ProjectStatus

_SCHEMA = """
CREATE TABLE IF NOT EXISTS refresh (
    endpoint TEXT PRIMARY KEY, fetched_ns INTEGER NOT NULL, count INTEGER NOT NULL, skipped INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS project (
    endpoint TEXT NOT NULL, uid TEXT NOT NULL, short_id TEXT NOT NULL, name TEXT NOT NULL, id INTEGER NOT NULL,
    status TEXT NOT NULL, owner TEXT NOT NULL, created_at REAL, updated_at REAL, description TEXT,
    contact_name TEXT, metadata TEXT, search TEXT NOT NULL,
    PRIMARY KEY (endpoint, uid), UNIQUE (endpoint, short_id)
) STRICT;
CREATE INDEX IF NOT EXISTS project_in_order ON project (endpoint, name, uid);
"""
_COLUMNS = "id, uid, short_id, name, status, owner, created_at, updated_at, description, contact_name, metadata"

FIND = (
    f"SELECT {_COLUMNS} FROM project WHERE endpoint = ?1 AND uid = ?2 "
    f"UNION ALL SELECT {_COLUMNS} FROM project WHERE endpoint = ?1 AND short_id = ?2 LIMIT 1"
)
"""Endpoint, and uid or short id: two lookups in an index, however many projects there are."""


@dataclass(frozen=True, slots=True)
class CachedPage:
    """Projects, and the refresh that they are of: both of one moment."""

    state: CacheState | None
    page: Page


class ProjectCache:
    """Projects by endpoint and uid. Made by `open`, ended by `close`. CacheUnusableError when the file fails."""

    def __init__(self, writer: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        self._writer, self._reader = writer, reader
        # A transaction spans several calls, and a connection has one at a time.
        self._writing, self._reading = asyncio.Lock(), asyncio.Lock()

    @classmethod
    async def open(cls, path: Path, logger: Logger) -> Self:
        """A damaged file is set aside and begun anew, with a warning: nothing in it is the only copy."""
        try:
            return await cls._open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise CacheUnusableError(str(error)) from error
            aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
            logger.warning("project_cache_damaged", problem=str(error), set_aside=str(aside))
            await asyncio.to_thread(_set_aside, path, aside)
            return await cls._open(path)

    @classmethod
    async def _open(cls, path: Path) -> Self:
        writer = await _connect(path)
        try:
            for row in await writer.execute_fetchall("PRAGMA quick_check(1)"):
                if row[0] != "ok":
                    raise sqlite3.DatabaseError(str(row[0]))
            await writer.executescript(_SCHEMA)
            reader = await _connect(path)
        except BaseException:
            await writer.close()
            raise
        try:
            await reader.execute("PRAGMA query_only = 1")
        except BaseException:
            await reader.close()
            await writer.close()
            raise
        return cls(writer, reader)

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()

    async def state(self, endpoint: str) -> CacheState | None:
        async with self._snapshot() as connection:
            return await _state(connection, endpoint)

    async def replace_all(self, endpoint: str, rows: ProjectRows, fetched_ns: int) -> None:
        """The projects of one refresh take the place of all earlier ones of that endpoint."""
        values = await asyncio.to_thread(lambda: [_to_row(endpoint, p) for p in rows.projects])
        async with self._writing, _failing_as_unusable():
            await self._writer.execute("BEGIN IMMEDIATE")
            try:
                await self._writer.execute("DELETE FROM project WHERE endpoint = ?", (endpoint,))
                await self._writer.executemany(
                    f"INSERT INTO project (endpoint, search, {_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", values
                )
                await self._writer.execute(
                    "INSERT OR REPLACE INTO refresh (endpoint, fetched_ns, count, skipped) VALUES (?,?,?,?)",
                    (endpoint, fetched_ns, len(values), rows.skipped),
                )
                await self._writer.execute("COMMIT")
            except BaseException:
                await self._writer.rollback()
                raise

    async def page(self, endpoint: str, wanted: ProjectFilter, after: PageKey | None, limit: int) -> CachedPage:
        """Up to `limit` matching projects beyond `after`, by name (code points) and uid."""
        conditions, values = ["endpoint = ?"], [endpoint]
        if after is not None:
            conditions.append("(name, uid) > (?, ?)")
            values += [after.name, after.uid]
        if wanted.statuses:
            conditions.append(f"status IN ({','.join('?' * len(wanted.statuses))})")
            values += sorted(wanted.statuses)
        if wanted.query:
            conditions.append("instr(search, ?) > 0")
            values.append(wanted.query.casefold())
        sql = f"SELECT {_COLUMNS} FROM project WHERE {' AND '.join(conditions)} ORDER BY name, uid LIMIT ?"
        async with self._snapshot() as connection:
            state = await _state(connection, endpoint)
            rows = await connection.execute_fetchall(sql, (*values, limit + 1))
        return CachedPage(state, cut_page([_from_row(r) for r in rows], limit))

    async def find(self, endpoint: str, id_: str) -> CachedPage:
        """The project with this uid or short id, if there is one."""
        async with self._snapshot() as connection:
            state = await _state(connection, endpoint)
            rows = await connection.execute_fetchall(FIND, (endpoint, id_))
        return CachedPage(state, Page([_from_row(r) for r in rows]))

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[aiosqlite.Connection]:
        async with self._reading, _failing_as_unusable():
            await self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                await self._reader.rollback()


async def _connect(path: Path) -> aiosqlite.Connection:
    connection = await aiosqlite.connect(path, isolation_level=None)
    try:
        await connection.execute("PRAGMA journal_mode = WAL")
        await connection.execute("PRAGMA synchronous = NORMAL")
        await connection.execute("PRAGMA busy_timeout = 5000")
    except BaseException:
        await connection.close()
        raise
    return connection


async def _state(connection: aiosqlite.Connection, endpoint: str) -> CacheState | None:
    sql = "SELECT fetched_ns, count, skipped FROM refresh WHERE endpoint = ?"
    for row in await connection.execute_fetchall(sql, (endpoint,)):
        return CacheState(*row)
    return None


@asynccontextmanager
async def _failing_as_unusable() -> AsyncIterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise CacheUnusableError(str(error)) from error


def _set_aside(path: Path, aside: Path) -> None:
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _to_row(endpoint: str, project: Project) -> tuple[Any, ...]:
    return (
        endpoint,
        search_text(project),
        project.id,
        project.uid,
        project.short_id,
        project.name,
        project.status.value,
        project.owner,
        project.created_at,
        project.updated_at,
        project.description,
        project.contact_name,
        None if project.metadata is None else msgspec.json.encode(project.metadata).decode(),
    )


def _from_row(row: sqlite3.Row | tuple[Any, ...]) -> Project:
    id_, uid, short_id, name, status, owner, created_at, updated_at, description, contact_name, metadata = row
    return Project(
        id=id_,
        uid=uid,
        short_id=short_id,
        name=name,
        status=ProjectStatus(status),
        owner=owner,
        created_at=created_at,
        updated_at=updated_at,
        description=description,
        contact_name=contact_name,
        metadata=None if metadata is None else msgspec.json.decode(metadata, type=dict[str, Any]),
    )
