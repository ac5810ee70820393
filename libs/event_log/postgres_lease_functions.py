"""The table and functions of leases in PostgreSQL. The database's clock ends them: replicas need not agree on one."""

from __future__ import annotations

LEASES_SQL = """
CREATE TABLE @schema@.leases (
    name text COLLATE "C" PRIMARY KEY,
    holder text COLLATE "C" NOT NULL,
    token bigint NOT NULL,
    expires timestamptz NOT NULL
);
CREATE SEQUENCE @schema@.lease_tokens AS bigint;

CREATE FUNCTION @schema@.acquire_lease(lease_name text, lease_holder text, seconds double precision)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $acquire$
DECLARE
    granted bigint;
BEGIN
    INSERT INTO @schema@.leases VALUES (lease_name, lease_holder, 0, '-infinity') ON CONFLICT (name) DO NOTHING;
    -- The row's lock comes before the token, so a later lease of this name has the greater one.
    UPDATE @schema@.leases l SET holder = lease_holder, token = nextval('@schema@.lease_tokens'),
            expires = clock_timestamp() + make_interval(secs => seconds)
        WHERE l.name = lease_name AND (l.holder = lease_holder OR l.expires <= clock_timestamp())
        RETURNING l.token INTO granted;
    RETURN granted;
END $acquire$;

CREATE FUNCTION @schema@.renew_lease(lease_name text, lease_token bigint, seconds double precision)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $renew$
BEGIN
    UPDATE @schema@.leases l SET expires = clock_timestamp() + make_interval(secs => seconds)
        WHERE l.name = lease_name AND l.token = lease_token AND l.expires > clock_timestamp();
    RETURN FOUND;
END $renew$;

CREATE FUNCTION @schema@.release_lease(lease_name text, lease_token bigint)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $release$
    DELETE FROM @schema@.leases l WHERE l.name = lease_name AND l.token = lease_token
$release$;
"""
