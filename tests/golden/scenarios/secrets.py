"""The secrets service's log: a store made, opened and closed, values set, read, refused and removed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from labferry.events.v1 import secret_events_pb2 as facts
from libs.event_log.event import RecordedEvent
from libs.event_log.sqlite_store import SqliteEventStore
from services.secrets.events import EVENT_TYPES, STORE_STREAM
from services.secrets.names import LogNames, NamesSoFar
from services.secrets.secret_id import DEFAULT_SERVICE
from tests.golden.scenario import LOG_COPIES, REFUSED_CALLS, Fact, GoldenService, Json, Scenario

_LIMS = {"service": DEFAULT_SERVICE, "username": "lims"}
_NAS = {"service": DEFAULT_SERVICE, "username": "nas:CONFOCAL_01"}
_LIMS_STREAM, _NAS_STREAM = (f"secret-{name['service']}/{name['username']}" for name in (_LIMS, _NAS))
_GATEWAY = "service:lims_gateway"

FIRST_RELEASE = Scenario(
    "first-release",
    (
        Fact(STORE_STREAM, facts.SecretStoreInitialized(backend="encrypted_file")),
        Fact(_LIMS_STREAM, facts.SecretSet(**_LIMS)),
        Fact(_NAS_STREAM, facts.SecretSet(**_NAS), correlation_id="c-1"),
        Fact(_LIMS_STREAM, facts.SecretSet(**_LIMS, replaced=True)),
        Fact(_LIMS_STREAM, facts.SecretRead(**_LIMS), actor=_GATEWAY),
        Fact(_NAS_STREAM, facts.SecretReadRefused(**_NAS, cause="not_allowed"), actor=_GATEWAY),
        Fact(STORE_STREAM, facts.SecretNamesListed(service=DEFAULT_SERVICE)),
        Fact(STORE_STREAM, facts.SecretStoreSealed()),
        Fact(STORE_STREAM, facts.SecretUnsealRefused(source="call")),
        Fact(STORE_STREAM, facts.SecretStoreUnsealed(source="file"), actor="service:secrets"),
        Fact(_NAS_STREAM, facts.SecretDeleted(**_NAS, existed=True), reason="the transport needs none µ"),
        Fact(_LIMS_STREAM, facts.SecretDeleted(**_LIMS, existed=True), reason="by mistake"),
        Fact(_LIMS_STREAM, facts.SecretChangeFailed(**_LIMS, change="delete", cause="StoreUnusableError")),
        *LOG_COPIES,
    ),
)


PASSPHRASE_CHANGED = Scenario(
    "passphrase-changed",
    (
        Fact(STORE_STREAM, facts.SecretStoreInitialized(backend="encrypted_file")),
        Fact(STORE_STREAM, facts.SecretUnsealRefused(source="change")),
        Fact(STORE_STREAM, facts.SecretPassphraseChanged()),
    ),
)


STORE_UPGRADED = Scenario(
    "store-upgraded",
    (
        Fact(STORE_STREAM, facts.SecretStoreInitialized(backend="encrypted_file")),
        Fact(STORE_STREAM, facts.SecretUnsealRefused(source="upgrade")),
        Fact(STORE_STREAM, facts.SecretStoreUpgraded(from_version=1, to_version=2)),
        Fact("secret-browser/lims", facts.SecretSet(service="browser", username="lims")),
    ),
)


async def _state_after(store: SqliteEventStore, event: RecordedEvent) -> Json:
    names = NamesSoFar()
    async for page in store.read(upto=event.position):
        for earlier in page:
            names.apply(earlier)
    return {"set_ns": dict(names.of_service(DEFAULT_SERVICE))}


async def _read_models(store: SqliteEventStore, folder: Path) -> Mapping[str, Json]:
    return {"set_ns": dict(await LogNames(store).of_service(DEFAULT_SERVICE))}


SECRETS = GoldenService(
    "secrets",
    EVENT_TYPES,
    (FIRST_RELEASE, Scenario("refused-calls", REFUSED_CALLS), PASSPHRASE_CHANGED, STORE_UPGRADED),
    _state_after,
    _read_models,
)
