"""The event types of this service's log."""

from __future__ import annotations

from labferry.events.v1 import secret_events_pb2
from libs.event_log.event import EventType, EventTypes
from libs.event_log.genesis import LOG_EVENT_TYPES

STORE_STREAM = "secrets-store"

STORE_INITIALIZED = "secrets.store_initialized.v1"
STORE_UNSEALED = "secrets.store_unsealed.v1"
PASSPHRASE_CHANGED = "secrets.passphrase_changed.v1"
STORE_UPGRADED = "secrets.store_upgraded.v1"
UNSEAL_REFUSED = "secrets.unseal_refused.v1"
SECRET_SET = "secrets.secret.set.v1"
SECRET_DELETED = "secrets.secret.deleted.v1"
SECRET_CHANGE_FAILED = "secrets.secret.change_failed.v1"
ROTATE_BY_SET = "secrets.secret.rotate_by_set.v1"
LEASE_GRANTED = "secrets.lease.granted.v1"
LEASE_REVOKED = "secrets.lease.revoked.v1"
LEASE_EXPIRED = "secrets.lease.expired.v1"

EVENT_TYPES = EventTypes(
    (
        *LOG_EVENT_TYPES,
        EventType(STORE_INITIALIZED, secret_events_pb2.SecretStoreInitialized),
        EventType(STORE_UNSEALED, secret_events_pb2.SecretStoreUnsealed),
        EventType("secrets.store_sealed.v1", secret_events_pb2.SecretStoreSealed),
        EventType(PASSPHRASE_CHANGED, secret_events_pb2.SecretPassphraseChanged),
        EventType(STORE_UPGRADED, secret_events_pb2.SecretStoreUpgraded),
        EventType(UNSEAL_REFUSED, secret_events_pb2.SecretUnsealRefused),
        EventType("secrets.names_listed.v1", secret_events_pb2.SecretNamesListed),
        EventType("secrets.secret.read.v1", secret_events_pb2.SecretRead),
        EventType("secrets.secret.read_refused.v1", secret_events_pb2.SecretReadRefused),
        EventType(SECRET_SET, secret_events_pb2.SecretSet),
        EventType(SECRET_DELETED, secret_events_pb2.SecretDeleted),
        EventType(SECRET_CHANGE_FAILED, secret_events_pb2.SecretChangeFailed),
        EventType(ROTATE_BY_SET, secret_events_pb2.SecretRotateBySet),
        EventType(LEASE_GRANTED, secret_events_pb2.SecretLeaseGranted),
        EventType(LEASE_REVOKED, secret_events_pb2.SecretLeaseRevoked),
        EventType(LEASE_EXPIRED, secret_events_pb2.SecretLeaseExpired),
    )
)
