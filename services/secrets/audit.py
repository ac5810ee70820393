"""Writes what happens to secrets into the event log, before anybody gets an answer. Never a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from labferry.events.v1 import secret_events_pb2 as facts
from libs.event_log.store import EventStore, Expected, StreamAppend
from libs.service_kit.identity import Role
from libs.service_kit.settings import SecretsBackend
from services.secrets.events import (
    EVENT_TYPES,
    LEASE_EXPIRED,
    LEASE_GRANTED,
    LEASE_REVOKED,
    PASSPHRASE_CHANGED,
    STORE_INITIALIZED,
    STORE_STREAM,
    STORE_UNSEALED,
    UNSEAL_REFUSED,
)
from services.secrets.passphrase_attempts import PassphraseAttempts
from services.secrets.secret_id import SecretId


class PassphraseSource(StrEnum):
    CALL = "call"
    FILE = "file"
    CHANGE = "change"
    UPGRADE = "upgrade"


class ReadRefusal(StrEnum):
    NOT_ALLOWED = "not_allowed"
    NOT_FOUND = "not_found"
    SEALED = "sealed"
    LEASE_NOT_LIVE = "lease_not_live"
    UNUSABLE = "unusable"


class FailedChange(StrEnum):
    SET = "set"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, as the server knows it. `correlation_id` joins the events of one call; `on_behalf_of`: for whom the
    caller says that it acts."""

    actor: str
    roles: frozenset[Role]
    correlation_id: str = ""
    on_behalf_of: str = ""


@dataclass(frozen=True, slots=True)
class OpenLease:
    """`holder`'s right to read one secret for one piece of work. `granted_ns`: nanoseconds since the epoch."""

    lease_id: str
    secret: SecretId
    purpose: str
    holder: str
    granted_ns: int


SERVICE_ITSELF = Asker("service:secrets", frozenset())


class Audit:
    """Each method returns when its event is durable, and raises the store's error when it can't be: then nothing may
    happen that the event would have told of."""

    def __init__(self, store: EventStore) -> None:
        self._store = store

    async def store_initialized(self, by: Asker, backend: str) -> None:
        await self._append(STORE_STREAM, facts.SecretStoreInitialized(backend=backend), by)

    async def store_unsealed(self, by: Asker, source: PassphraseSource) -> None:
        await self._append(STORE_STREAM, facts.SecretStoreUnsealed(source=source), by)

    async def store_sealed(self, by: Asker) -> None:
        await self._append(STORE_STREAM, facts.SecretStoreSealed(), by)

    async def unseal_refused(self, by: Asker, source: PassphraseSource) -> None:
        await self._append(STORE_STREAM, facts.SecretUnsealRefused(source=source), by)

    async def passphrase_changed(self, by: Asker) -> None:
        await self._append(STORE_STREAM, facts.SecretPassphraseChanged(), by)

    async def store_upgraded(self, by: Asker, from_version: int, to_version: int) -> None:
        fact = facts.SecretStoreUpgraded(from_version=from_version, to_version=to_version)
        await self._append(STORE_STREAM, fact, by)

    async def attempts_so_far(self) -> PassphraseAttempts:
        """The wrong passphrases that this log tells of."""
        attempts = PassphraseAttempts()
        types = (STORE_INITIALIZED, STORE_UNSEALED, PASSPHRASE_CHANGED, UNSEAL_REFUSED)
        async for page in self._store.read(stream=STORE_STREAM, types=types):
            for event in page:
                attempts.apply(event)
        return attempts

    async def names_listed(self, by: Asker, service: str) -> None:
        await self._append(STORE_STREAM, facts.SecretNamesListed(service=service), by)

    async def read(self, by: Asker, secret: SecretId, lease_id: str) -> None:
        fact = facts.SecretRead(service=secret.service, username=secret.username, lease_id=lease_id)
        await self._append(secret.stream, fact, by)

    async def read_refused(self, by: Asker, secret: SecretId, cause: ReadRefusal, lease_id: str) -> None:
        fact = facts.SecretReadRefused(service=secret.service, username=secret.username, cause=cause, lease_id=lease_id)
        await self._append(secret.stream, fact, by)

    async def lease_granted(self, by: Asker, secret: SecretId, lease_id: str, purpose: str) -> None:
        fact = facts.SecretLeaseGranted(
            service=secret.service, username=secret.username, lease_id=lease_id, purpose=purpose
        )
        await self._append(secret.stream, fact, by)

    async def lease_revoked(self, by: Asker, secret: SecretId, lease_id: str, reason: str) -> None:
        fact = facts.SecretLeaseRevoked(service=secret.service, username=secret.username, lease_id=lease_id)
        await self._append(secret.stream, fact, by, reason)

    async def lease_expired(self, secret: SecretId, lease_id: str) -> None:
        fact = facts.SecretLeaseExpired(service=secret.service, username=secret.username, lease_id=lease_id)
        await self._append(secret.stream, fact, SERVICE_ITSELF)

    async def leases_left_open(self) -> Sequence[OpenLease]:
        """The leases that this log tells no end of, the oldest first."""
        granted: dict[str, OpenLease] = {}
        async for page in self._store.read(types=(LEASE_GRANTED, LEASE_REVOKED, LEASE_EXPIRED)):
            for event in page:
                match EVENT_TYPES.decode(event):
                    case facts.SecretLeaseGranted() as fact:
                        secret = SecretId(fact.service, fact.username)
                        granted[fact.lease_id] = OpenLease(
                            fact.lease_id, secret, fact.purpose, event.actor, event.recorded_ns
                        )
                    case facts.SecretLeaseRevoked() | facts.SecretLeaseExpired() as end:
                        granted.pop(end.lease_id, None)
        return tuple(granted.values())

    async def secret_set(
        self,
        by: Asker,
        secret: SecretId,
        *,
        replaced: bool,
        rotate_by: Timestamp | None,
        backend: SecretsBackend,
        store_version: int,
    ) -> None:
        fact = facts.SecretSet(
            service=secret.service,
            username=secret.username,
            replaced=replaced,
            rotate_by=rotate_by,
            backend=backend,
            store_version=store_version,
        )
        await self._append(secret.stream, fact, by)

    async def rotate_by_set(self, by: Asker, secret: SecretId, rotate_by: Timestamp | None) -> None:
        fact = facts.SecretRotateBySet(service=secret.service, username=secret.username, rotate_by=rotate_by)
        await self._append(secret.stream, fact, by)

    async def secret_deleted(self, by: Asker, secret: SecretId, *, existed: bool, reason: str) -> None:
        fact = facts.SecretDeleted(service=secret.service, username=secret.username, existed=existed)
        await self._append(secret.stream, fact, by, reason)

    async def change_failed(self, by: Asker, secret: SecretId, change: FailedChange, cause: str) -> None:
        fact = facts.SecretChangeFailed(service=secret.service, username=secret.username, change=change, cause=cause)
        await self._append(secret.stream, fact, by)

    async def knows_a_file(self) -> bool:
        """Whether this log tells of an encrypted file that was made or opened here before."""
        types = (STORE_INITIALIZED, STORE_UNSEALED)
        async for _ in self._store.read(stream=STORE_STREAM, types=types, limit=1):
            return True
        return False

    async def _append(self, stream: str, fact: Message, by: Asker, reason: str = "") -> None:
        event = EVENT_TYPES.new_event(
            fact, actor=by.actor, correlation_id=by.correlation_id, on_behalf_of=by.on_behalf_of, reason=reason
        )
        await self._store.append((StreamAppend(stream, Expected.ANY, (event,)),))
