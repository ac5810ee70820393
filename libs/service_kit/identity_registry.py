"""The file that knows every identity of a state folder: one token a person and a service, kept as its hash alone."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from filelock import FileLock

from libs.service_kit.identity import SERVICES, Role

_FILE = "identities.json"
_ACTOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


class IdentityError(Exception):
    """What the registry can't do; one plain sentence for the person who asked."""


class RegisteredIdentity(msgspec.Struct, frozen=True, omit_defaults=True):
    """One identity. Times are RFC 3339, UTC; "" where there is none. A revoked one stays, so that nobody gets its name
    again: events name it.

    `earlier_token_sha256` still counts until `earlier_until`: a rotated token's users get time to take the new one.
    """

    actor: str
    roles: tuple[Role, ...]
    token_sha256: str
    created_at: str
    expires_at: str = ""
    revoked_at: str = ""
    rotated_at: str = ""
    earlier_token_sha256: str = ""
    earlier_until: str = ""


class _Content(msgspec.Struct, frozen=True):
    identities: tuple[RegisteredIdentity, ...] = ()


class IdentityRegistry:
    """Reads and changes the registry of one state folder. Changes count for running services from their next call on.
    Blocking."""

    def __init__(self, state_dir: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.path = state_dir / _FILE
        self._clock = clock

    def read(self) -> Sequence[RegisteredIdentity]:
        """Everything that is there. IdentityError for a file that can't be used; OSError of the system."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=_Content).identities
        except FileNotFoundError:
            return ()
        except msgspec.DecodeError as error:
            raise IdentityError(f"{self.path} can't be read: {error}") from error

    def ensure(self, actor: str, roles: tuple[Role, ...], token_file: Path) -> None:
        """Makes an identity and its token file, unless it is known already, revoked or not."""
        with self._changing() as identities:
            if actor not in identities:
                identities[actor] = self._new(actor, roles, token_file, "")

    def create(self, actor: str, roles: Sequence[Role], token_file: Path, lifetime: timedelta | None) -> None:
        """A new person's identity; its token is written to `token_file`, which must not exist. IdentityError."""
        if not _ACTOR.fullmatch(actor):
            raise IdentityError(f"{actor!r} is no name: letters, digits, '_', '-' and '.', 63 at most")
        if not roles or not SERVICES.isdisjoint(roles):
            raise IdentityError("people have the roles viewer, operator and admin; services have tokens of their own")
        with self._changing() as identities:
            if actor in identities:
                raise IdentityError(f"there is an identity {actor} already; a name is never given twice")
            if token_file.exists():
                raise IdentityError(f"{token_file} exists already; it is not replaced")
            expires = "" if lifetime is None else _text(self._clock() + lifetime)
            identities[actor] = self._new(actor, tuple(roles), token_file, expires)

    def rotate(self, actor: str, token_file: Path, grace: timedelta) -> None:
        """A new token in the place of the old one, which still counts for `grace`. IdentityError."""
        with self._changing() as identities:
            known = self._living(identities, actor)
            token = secrets.token_urlsafe(32)
            now = self._clock()
            identities[actor] = msgspec.structs.replace(
                known,
                token_sha256=_hash(token),
                rotated_at=_text(now),
                earlier_token_sha256=known.token_sha256 if grace else "",
                earlier_until=_text(now + grace) if grace else "",
            )
            # A service that reads the file meanwhile finds the old token or the new one; both count by now or soon.
            temporary = token_file.with_name(token_file.name + ".new")
            write_private(temporary, token)
        temporary.replace(token_file)

    def revoke(self, actor: str) -> None:
        """Its tokens count no longer. IdentityError."""
        with self._changing() as identities:
            known = self._living(identities, actor)
            identities[actor] = msgspec.structs.replace(
                known, revoked_at=_text(self._clock()), token_sha256="", earlier_token_sha256="", earlier_until=""
            )

    def _living(self, identities: dict[str, RegisteredIdentity], actor: str) -> RegisteredIdentity:
        known = identities.get(actor)
        if known is None:
            raise IdentityError(f"there is no identity {actor}")
        if known.revoked_at:
            raise IdentityError(f"{actor} was revoked at {known.revoked_at}")
        return known

    def _new(self, actor: str, roles: tuple[Role, ...], token_file: Path, expires: str) -> RegisteredIdentity:
        token = secrets.token_urlsafe(32)
        write_private(token_file, token)
        return RegisteredIdentity(actor, roles, _hash(token), _text(self._clock()), expires_at=expires)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, RegisteredIdentity]]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock", mode=0o600):
            before = self.read()
            identities = {i.actor: i for i in before}
            yield identities
            after = tuple(identities.values())
            if after != tuple(before):
                temporary = self.path.with_suffix(".tmp")
                write_private(temporary, msgspec.json.encode(_Content(after)).decode())
                temporary.replace(self.path)


def write_private(path: Path, text: str) -> None:
    """A file that only its owner can read, durable, in a folder that only its owner can enter."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A crash between token file and registry leaves a token that nobody knows: it is made anew.
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
