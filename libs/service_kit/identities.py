"""Proves who calls, by a token or by a certificate that this machine's registry or configuration knows."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from libs.service_kit.errors import UnauthenticatedError
from libs.service_kit.identity import (
    OPERATOR_TOKEN_FILE,
    Caller,
    Role,
    ServiceName,
    service_token_file,
)
from libs.service_kit.identity_registry import IdentityRegistry, RegisteredIdentity
from libs.service_kit.loop_turn import LookedThisTurn


@dataclass(frozen=True, slots=True)
class _Token:
    caller: Caller
    until: float | None


class Identities:
    """The identities of one state folder, and those that certificates prove. A token that is added, rotated or revoked
    counts from the next call on."""

    def __init__(self, state_dir: Path, certificates: Mapping[str, Caller] | None = None) -> None:
        self._registry = IdentityRegistry(state_dir)
        self._certificates = certificates or {}
        self._signature: tuple[int, int, int] | None = None
        self._tokens: dict[bytes, _Token] = {}
        self._looked = LookedThisTurn()

    def authenticate(self, authorization: str | None, names: Iterable[str] = ()) -> Caller:
        """The caller that an `authorization` value proves, or else the names of its certificate.
        UnauthenticatedError for none, or one that is unknown, revoked or out of date."""
        if authorization is None:
            return self._by_certificate(names)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthenticatedError('"authorization" must be "Bearer <token>"')
        self._reload()
        known = self._tokens.get(hashlib.sha256(token.encode()).digest())
        if known is None or (known.until is not None and known.until <= time.time()):
            raise UnauthenticatedError("the token is not known here, or no longer")
        return known.caller

    def _by_certificate(self, names: Iterable[str]) -> Caller:
        for name in names:
            caller = self._certificates.get(name)
            if caller is not None:
                return caller
        raise UnauthenticatedError('the call carries no "authorization: Bearer <token>", and no certificate known here')

    def _reload(self) -> None:
        if self._looked:
            return
        status = os.stat(self._registry.path)
        signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        if signature == self._signature:
            self._looked.note()
            return
        self._tokens = {h: t for identity in self._registry.read() for h, t in _tokens(identity)}
        self._signature = signature


def _tokens(identity: RegisteredIdentity) -> Iterable[tuple[bytes, _Token]]:
    caller = Caller(identity.actor, frozenset(identity.roles))
    expires = _moment(identity.expires_at)
    if identity.token_sha256:
        yield bytes.fromhex(identity.token_sha256), _Token(caller, expires)
    if identity.earlier_token_sha256:
        ends = [moment for moment in (expires, _moment(identity.earlier_until)) if moment is not None]
        yield bytes.fromhex(identity.earlier_token_sha256), _Token(caller, min(ends, default=None))


def _moment(text: str) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None


def ensure_identities(state_dir: Path, certificates: Mapping[str, Caller] | None = None) -> Identities:
    """Makes the first operator's and each service's token at the first start; later starts find them.

    The registry keeps hashes alone. Token files are 0600, made exclusively, in folders of mode 0700.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    registry = IdentityRegistry(state_dir)
    registry.ensure("operator-1", (Role.OPERATOR, Role.ADMIN), state_dir / OPERATOR_TOKEN_FILE)
    for service, role in (
        (ServiceName.SYNC_ENGINE, Role.SERVICE_SYNC_ENGINE),
        (ServiceName.LIMS_GATEWAY, Role.SERVICE_LIMS_GATEWAY),
    ):
        registry.ensure(role.value, (role,), service_token_file(state_dir, service))
    return Identities(state_dir, certificates)
