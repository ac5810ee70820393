"""Addresses of PostgreSQL databases in the configuration: no secret in them, no plaintext beyond this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import parse_qs, urlsplit

_SCHEMES = ("postgresql", "postgres")
_ENCRYPTED = ("require", "verify-ca", "verify-full")
_PARAMETERS = frozenset(
    {"host", "port", "user", "dbname", "passfile", "application_name", "target_session_attrs"}
    | {"sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "ssl_min_protocol_version"}
)


def check_postgres_url(url: str) -> str:
    """The address as it is used. ValueError says what is wrong with it, and never repeats a password.

    A database on another machine is reached with `sslmode=require` at least, even where the address doesn't say so.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ValueError('must be "sqlite" or postgresql://user@host/database')
    user, at, hosts = parts.netloc.rpartition("@")
    parameters = parse_qs(parts.query, keep_blank_values=True)
    if ":" in user or "password" in parameters or "sslpassword" in parameters:
        raise ValueError("holds a password; use passfile=/path, PGPASSFILE, ~/.pgpass or a client certificate")
    if unknown := sorted(parameters.keys() - _PARAMETERS):
        raise ValueError(f"has parameters that are not known: {', '.join(unknown)}")
    if not (at and user) and "user" not in parameters:
        raise ValueError("names no user: postgresql://user@host/database")
    if not parts.path.strip("/") and "dbname" not in parameters:
        raise ValueError("names no database: postgresql://user@host/database")
    named = [*hosts.split(","), *(host for value in parameters.get("host", ()) for host in value.split(","))]
    if all(_is_here(host) for host in named if host):
        return url
    mode = parameters.get("sslmode", [""])[-1]
    if not mode:
        return f"{url}{'&' if parts.query else '?'}sslmode=require"
    if mode not in _ENCRYPTED:
        raise ValueError("the log would travel in plaintext: sslmode must be require, verify-ca or verify-full")
    return url


def _is_here(host: str) -> bool:
    """Whether a host, perhaps with a port, is this machine: a socket's folder or a loopback address."""
    if host.startswith(("/", "%2F", "%2f")):
        return True
    name = host[1 : host.find("]")] if host.startswith("[") else host.split(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
