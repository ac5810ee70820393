"""What PostgreSQL's refusals and broken connections mean to a caller of the log."""

from __future__ import annotations

import asyncpg

from libs.event_log.store import (
    EventStoreError,
    LogDamagedError,
    LogDiskFullError,
    LogLocationError,
    LogUnavailableError,
)

CONNECTION_LOST: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    # A primary that became a standby: a new connection may find the new primary.
    asyncpg.ReadOnlySQLTransactionError,
)
"""Whether a write took place isn't known after these; another connection may do better. Includes TimeoutError."""

_DAMAGED = (asyncpg.DataCorruptedError, asyncpg.IndexCorruptedError, asyncpg.IntegrityConstraintViolationError)
_MISPLACED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)


def store_error(error: Exception) -> EventStoreError:
    """The store's error for what PostgreSQL answered."""
    match error:
        case asyncpg.DiskFullError():
            return LogDiskFullError("the event log's disk is full; nothing was recorded")
        case _ if isinstance(error, _DAMAGED):
            return LogDamagedError(0, str(error))
    return LogUnavailableError(f"the event log is not available: {type(error).__name__}: {error}")


def opening_error(error: Exception) -> EventStoreError:
    """The same, while the log is being opened: a database that refuses this role won't change its mind by itself."""
    if isinstance(error, _MISPLACED):
        return LogLocationError(f"the event log's database refuses this service: {error}")
    return store_error(error)
