"""The log's tables in PostgreSQL: one schema a service, guarded, and the script that makes or updates it.

The script can be run again and again. A service runs it by itself where its role may; elsewhere the database's owner
runs it (docs/cluster-admin.md), and the service's role can only read and call the functions.
"""

from __future__ import annotations

import re

from libs.event_log.postgres_append_function import append_function_sql
from libs.event_log.postgres_lease_functions import LEASES_SQL

SCHEMA_VERSION = 1
OLDEST_SERVER = 14
"""The oldest major version of PostgreSQL that understands the functions."""

EVENT_COLUMNS = (
    "position, stream, revision, type, event_id, recorded_ns, actor, payload, hash,"
    " may_ignore, on_behalf_of, reason, correlation_id, causation_id"
)
"""In the order of RecordedEvent's fields, so that a row is an event's arguments."""

_SCHEMA_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_ROLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")

_TABLES = """
CREATE TABLE @schema@.schema_version (version integer PRIMARY KEY);
CREATE TABLE @schema@.log (store_id text COLLATE "C" PRIMARY KEY);
CREATE TABLE @schema@.events (
    position bigint PRIMARY KEY,
    stream text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    type text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL UNIQUE,
    recorded_ns bigint NOT NULL,
    actor text COLLATE "C" NOT NULL,
    on_behalf_of text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL,
    correlation_id text COLLATE "C" NOT NULL,
    causation_id text COLLATE "C" NOT NULL,
    may_ignore boolean NOT NULL,
    hash bytea NOT NULL,
    payload bytea NOT NULL,
    UNIQUE (stream, revision)
);
-- The last position ever given out: it shows a tail that was cut off.
CREATE TABLE @schema@.highest (position bigint NOT NULL);
-- An append may record a request and no event; then last_position is one less than first_position.
CREATE TABLE @schema@.requests (
    actor text COLLATE "C" NOT NULL,
    method text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    body_digest bytea NOT NULL,
    first_position bigint NOT NULL,
    last_position bigint NOT NULL,
    PRIMARY KEY (actor, method, request_id)
);
CREATE FUNCTION @schema@.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $refuse$
BEGIN
    RAISE EXCEPTION 'the event log is append-only' USING ERRCODE = 'restrict_violation';
END $refuse$;
"""

# ALWAYS: not even a session that plays a replica's changes (session_replication_role) passes by.
_GUARD = """
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON @schema@.{table}
    FOR EACH STATEMENT EXECUTE FUNCTION @schema@.refuse_change();
ALTER TABLE @schema@.{table} ENABLE ALWAYS TRIGGER refuse_change;
"""

_FIRST_ROWS = """
INSERT INTO @schema@.log (store_id) VALUES (gen_random_uuid()::text);
INSERT INTO @schema@.highest (position) VALUES (0);
INSERT INTO @schema@.schema_version (version) VALUES (1);
"""

_GRANTS = """
GRANT USAGE ON SCHEMA @schema@ TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA @schema@ TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA @schema@ TO {role};
"""


def schema_script(schema: str, application_role: str | None = None) -> str:
    """SQL that makes or updates a service's schema, to be run in one transaction.

    `application_role` may then read everything and change nothing but through the functions. ValueError for names that
    need quoting in SQL.
    """
    if not _SCHEMA_NAME.fullmatch(schema):
        raise ValueError(f"{schema!r} is no schema of a service")
    guards = "".join(_GUARD.format(table=table) for table in ("schema_version", "log", "events", "requests"))
    version_1 = _TABLES + guards + LEASES_SQL + append_function_sql() + _FIRST_ROWS
    script = f"""
SELECT pg_advisory_xact_lock({migration_lock_sql()});
CREATE SCHEMA IF NOT EXISTS @schema@;
DO $migrate$
BEGIN
IF to_regclass('@schema@.schema_version') IS NULL THEN
{version_1}
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA @schema@ FROM PUBLIC;
END IF;
END $migrate$;
"""
    if application_role is not None:
        if not _ROLE_NAME.fullmatch(application_role):
            raise ValueError(f"{application_role!r} is no plain name of a role")
        script += _GRANTS.format(role=f'"{application_role}"')
    return script.replace("@schema@", schema)


def migration_lock_sql() -> str:
    """The lock that lets one process at a time make or update schemas of a database."""
    return "hashtextextended('labferry schemas', 0)"


def notification_channel(schema: str) -> str:
    """Where append_events tells the new head."""
    return f"labferry_{schema}"
