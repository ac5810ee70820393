"""Opens a service's event log, or begins a new one to be filled, where the configuration says it is kept."""

from __future__ import annotations

from pathlib import Path

from libs.event_log.restore import NewLog
from libs.event_log.sqlite_restore import NewSqliteLog
from libs.event_log.sqlite_store import SqliteEventStore
from libs.event_log.store import EventStore
from libs.service_kit.settings import SQLITE
from libs.service_kit.version import LABFERRY_VERSION


async def open_event_store(url: str, service: str, state_dir: Path) -> EventStore:
    """`url` as in `event_log.url`; `state_dir`: the service's own folder, which holds the file of an SQLite log.

    EventStoreError: of SqliteEventStore.open or PostgresEventStore.open.
    """
    if url == SQLITE:
        return await SqliteEventStore.open(state_dir / "events.sqlite3", service=service, version=LABFERRY_VERSION)
    # Not before it is needed: its driver takes a tenth of a service's start.
    from libs.event_log.postgres_store import PostgresEventStore

    return await PostgresEventStore.open(url, service=service, version=LABFERRY_VERSION)


def begin_new_log(url: str, service: str, state_dir: Path, work_folder: Path) -> NewLog:
    """A new log for a restore; `url` and `state_dir` as above. Blocks. LogLocationError, LogInUseError."""
    if url == SQLITE:
        return NewSqliteLog(state_dir / "events.sqlite3", work_folder)
    from libs.event_log.postgres_restore import NewPostgresLog

    return NewPostgresLog(url, service)
