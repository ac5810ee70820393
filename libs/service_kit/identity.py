"""Who calls: one token a person and a service, known here by its hash only (SPEC §10, ARCHITECTURE §5)."""

from __future__ import annotations

import contextvars
import hashlib
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import msgspec
from filelock import FileLock

from libs.service_kit.errors import PermissionDeniedError, UnauthenticatedError
from libs.service_kit.loop_turn import LookedThisTurn

OPERATOR_TOKEN_FILE = "operator.token"
SERVICE_TOKEN_FILE = "service.token"
_REGISTRY_FILE = "identities.json"


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    SERVICE_SYNC_ENGINE = "service:sync_engine"
    SERVICE_LIMS_GATEWAY = "service:lims_gateway"


class ServiceName(StrEnum):
    SECRETS = "secrets"
    LIMS_GATEWAY = "lims_gateway"
    SYNC_ENGINE = "sync_engine"


SERVICES = frozenset({Role.SERVICE_SYNC_ENGINE, Role.SERVICE_LIMS_GATEWAY})
READERS = frozenset({Role.VIEWER, Role.OPERATOR, Role.ADMIN}) | SERVICES
OPERATORS = frozenset({Role.OPERATOR, Role.ADMIN})
ADMINS = frozenset({Role.ADMIN})


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated identity. `actor` is opaque: events name it, not the person."""

    actor: str
    roles: frozenset[Role]


_current: contextvars.ContextVar[Caller] = contextvars.ContextVar("caller")


def current_caller() -> Caller:
    """The caller of the RPC that is being served. UnauthenticatedError outside of one."""
    try:
        return _current.get()
    except LookupError:
        raise UnauthenticatedError("this call has no authenticated caller") from None


def set_current_caller(caller: Caller) -> None:
    _current.set(caller)


class _Identity(msgspec.Struct, frozen=True):
    actor: str
    roles: tuple[Role, ...]
    token_sha256: str
    created_at: str


class _Registry(msgspec.Struct, frozen=True):
    identities: tuple[_Identity, ...] = ()


class Identities:
    """The identities of one state folder. A token that is added or removed there counts from the next call on."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / _REGISTRY_FILE
        self._signature: tuple[int, int, int] | None = None
        self._callers: dict[bytes, Caller] = {}
        self._looked = LookedThisTurn()

    def authenticate(self, authorization: str | None) -> Caller:
        """The caller that an `authorization` value proves. UnauthenticatedError for none, or an unknown token."""
        if authorization is None:
            raise UnauthenticatedError('the call carries no "authorization: Bearer <token>"')
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthenticatedError('"authorization" must be "Bearer <token>"')
        self._reload()
        caller = self._callers.get(hashlib.sha256(token.encode()).digest())
        if caller is None:
            raise UnauthenticatedError("the token is not known here")
        return caller

    def _reload(self) -> None:
        if self._looked:
            return
        status = os.stat(self._path)
        signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        if signature == self._signature:
            self._looked.note()
            return
        registry = msgspec.json.decode(self._path.read_bytes(), type=_Registry)
        self._callers = {
            bytes.fromhex(i.token_sha256): Caller(i.actor, frozenset(i.roles)) for i in registry.identities
        }
        self._signature = signature


def require_role(caller: Caller, allowed: frozenset[Role], method: str) -> None:
    if caller.roles.isdisjoint(allowed):
        needed = ", ".join(sorted(allowed))
        raise PermissionDeniedError(
            f"{method} needs one of these roles: {needed}", metadata={"method": method, "needed_roles": needed}
        )


def ensure_identities(state_dir: Path) -> Identities:
    """Makes the first operator's and each service's token at the first start; later starts find them.

    The registry keeps hashes alone. Token files are 0600, made exclusively, in folders of mode 0700.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    registry_path = state_dir / _REGISTRY_FILE
    wanted: list[tuple[str, tuple[Role, ...], Path]] = [
        ("operator-1", (Role.OPERATOR, Role.ADMIN), state_dir / OPERATOR_TOKEN_FILE)
    ]
    for service, role in (
        (ServiceName.SYNC_ENGINE, Role.SERVICE_SYNC_ENGINE),
        (ServiceName.LIMS_GATEWAY, Role.SERVICE_LIMS_GATEWAY),
    ):
        wanted.append((role.value, (role,), service_token_file(state_dir, service)))
    with FileLock(f"{registry_path}.lock", mode=0o600):
        known = _Registry()
        if registry_path.exists():
            known = msgspec.json.decode(registry_path.read_bytes(), type=_Registry)
        identities = {i.actor: i for i in known.identities}
        for actor, roles, token_file in wanted:
            if actor in identities:
                continue
            token = secrets.token_urlsafe(32)
            _write_private(token_file, token)
            identities[actor] = _Identity(
                actor=actor,
                roles=roles,
                token_sha256=hashlib.sha256(token.encode()).hexdigest(),
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        if len(identities) != len(known.identities):
            temporary = registry_path.with_suffix(".tmp")
            temporary.unlink(missing_ok=True)
            _write_private(temporary, msgspec.json.encode(_Registry(tuple(identities.values()))).decode())
            temporary.replace(registry_path)
    return Identities(state_dir)


def service_token_file(state_dir: Path, service: ServiceName) -> Path:
    return state_dir / service / SERVICE_TOKEN_FILE


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A crash between token file and registry leaves a token that nobody knows: it is made anew.
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
