"""Who calls, and what each role may do (SPEC §10, ARCHITECTURE §5)."""

from __future__ import annotations

import contextvars
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from libs.service_kit.errors import PermissionDeniedError, UnauthenticatedError

OPERATOR_TOKEN_FILE = "operator.token"
SERVICE_TOKEN_FILE = "service.token"


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


def require_role(caller: Caller, allowed: frozenset[Role], method: str) -> None:
    if caller.roles.isdisjoint(allowed):
        needed = ", ".join(sorted(allowed))
        raise PermissionDeniedError(
            f"{method} needs one of these roles: {needed}", metadata={"method": method, "needed_roles": needed}
        )


def service_token_file(state_dir: Path, service: ServiceName) -> Path:
    return state_dir / service / SERVICE_TOKEN_FILE
