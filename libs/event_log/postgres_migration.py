"""Makes a service's schema, or finds out that it is there and understood.

`python -m libs.event_log.postgres_migration` prints the script for whoever owns the database.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import asyncpg

from libs.event_log.postgres_connection import Connection
from libs.event_log.postgres_schema import OLDEST_SERVER, SCHEMA_VERSION, migration_lock_sql, schema_script
from libs.event_log.store import LogDamagedError, LogLocationError


async def ensure_schema(connection: Connection, schema: str) -> str:
    """Makes or updates the schema if need be; the id that names its log.

    LogLocationError for a database that can't keep a log, or a schema that this role may not make; asyncpg's errors.
    """
    await _check_server(connection)
    try:
        version = await _version(connection, schema)
        if version is None:
            await connection.execute(schema_script(schema))
            version = await _version(connection, schema)
    except asyncpg.InsufficientPrivilegeError as error:
        raise LogLocationError(
            f"the schema {schema} can't be made or used by this role ({error}); the database's owner prepares it with"
            f" the script that `python -m libs.event_log.postgres_migration --schema {schema}` prints"
        ) from error
    if version != SCHEMA_VERSION:
        raise LogLocationError(
            f"the schema {schema} has version {version}; this version of Labferry reads {SCHEMA_VERSION}"
        )
    store_id = await connection.fetchval(f"SELECT store_id FROM {schema}.log")
    if store_id is None:
        raise LogDamagedError(0, "the log's own id is gone")
    return str(store_id)


async def _check_server(connection: Connection) -> None:
    encoding, version = await connection.fetchrow(
        "SELECT current_setting('server_encoding'), current_setting('server_version_num')::int / 10000"
    ) or ("", 0)
    if encoding != "UTF8":
        raise LogLocationError(f"the event log's database has the encoding {encoding}; it must be UTF8")
    if version < OLDEST_SERVER:
        raise LogLocationError(f"PostgreSQL {version} is too old for the event log; {OLDEST_SERVER} or newer is needed")


async def _version(connection: Connection, schema: str) -> int | None:
    """None when there is no log yet. Waits for another process that is just making one."""
    async with connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({migration_lock_sql()})")
        if await connection.fetchval("SELECT to_regclass($1)", f"{schema}.schema_version") is None:
            return None
        version = await connection.fetchval(f"SELECT max(version) FROM {schema}.schema_version")
    return int(version or 0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m libs.event_log.postgres_migration",
        description="Prints the SQL that prepares a service's schema; run it as the database's owner, psql -1.",
    )
    parser.add_argument("--schema", required=True, help="secrets, lims_gateway or sync_engine")
    parser.add_argument("--application-role", help="the role that the service uses; it gets no right to change events")
    chosen = parser.parse_args(arguments)
    try:
        sys.stdout.write(schema_script(chosen.schema, chosen.application_role))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
