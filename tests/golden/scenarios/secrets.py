"""The secrets service's log: a store made, opened and closed, values set, read, refused and removed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from labferry.events.v1 import secret_events_pb2 as facts
from libs.event_log.event import RecordedEvent
from libs.event_log.sqlite_store import SqliteEventStore
from services.secrets.events import EVENT_TYPES, STORE_STREAM
from services.secrets.history import HistoriesSoFar
from services.secrets.names import LogHistories
from services.secrets.secret_id import DEFAULT_SERVICE
from tests.golden.scenario import LOG_COPIES, REFUSED_CALLS, Fact, GoldenService, Json, Scenario

_LIMS = {"service": DEFAULT_SERVICE, "username": "lims"}
_NAS = {"service": DEFAULT_SERVICE, "username": "nas:CONFOCAL_01"}
_LIMS_STREAM, _NAS_STREAM = (f"secret-{name['service']}/{name['username']}" for name in (_LIMS, _NAS))
_ENGINE = "service:sync_engine"
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


ROTATION = Scenario(
    "rotation",
    (
        Fact(_LIMS_STREAM, facts.SecretSet(**_LIMS)),
        Fact(_LIMS_STREAM, facts.SecretRotateBySet(**_LIMS, rotate_by=Timestamp(seconds=1_800_000_000))),
        Fact(_NAS_STREAM, facts.SecretSet(**_NAS, rotate_by=Timestamp(seconds=1_790_000_000, nanos=5))),
        Fact(_LIMS_STREAM, facts.SecretSet(**_LIMS, replaced=True, rotate_by=Timestamp(seconds=1_900_000_000))),
        Fact(_LIMS_STREAM, facts.SecretChangeFailed(**_LIMS, change="set", cause="StoreUnusableError")),
        Fact(_NAS_STREAM, facts.SecretRotateBySet(**_NAS)),
        Fact(_NAS_STREAM, facts.SecretSet(**_NAS, replaced=True)),
    ),
)


LEASES = Scenario(
    "leases",
    (
        Fact(_NAS_STREAM, facts.SecretSet(**_NAS)),
        Fact(_NAS_STREAM, facts.SecretLeaseGranted(**_NAS, lease_id="1" * 32, purpose="job 7"), actor=_ENGINE),
        Fact(_NAS_STREAM, facts.SecretRead(**_NAS, lease_id="1" * 32), actor=_ENGINE),
        Fact(_NAS_STREAM, facts.SecretLeaseRevoked(**_NAS, lease_id="1" * 32), reason="the storage was stolen µ"),
        Fact(_NAS_STREAM, facts.SecretLeaseGranted(**_NAS, lease_id="2" * 32, purpose="job 8"), actor=_ENGINE),
        Fact(
            _NAS_STREAM,
            facts.SecretReadRefused(**_NAS, cause="lease_not_live", lease_id="1" * 32),
            actor=_ENGINE,
        ),
        Fact(_NAS_STREAM, facts.SecretLeaseExpired(**_NAS, lease_id="2" * 32), actor="service:secrets"),
    ),
)


STORES = Scenario(
    "stores",
    (
        Fact(_LIMS_STREAM, facts.SecretSet(**_LIMS, backend="encrypted_file")),
        Fact(_LIMS_STREAM, facts.SecretSet(**_LIMS, backend="os_keyring", replaced=True)),
        Fact(_NAS_STREAM, facts.SecretSet(**_NAS, backend="openbao", store_version=4)),
    ),
)


async def _state_after(store: SqliteEventStore, event: RecordedEvent) -> Json:
    histories = HistoriesSoFar()
    async for page in store.read(upto=event.position):
        for earlier in page:
            histories.apply(earlier)
    return _state_of(histories)


def _state_of(histories: HistoriesSoFar) -> Json:
    """Dates and versions are told of the logs that have dates; older ones are compared with what they gave then."""
    present = histories.present(DEFAULT_SERVICE)
    state: dict[str, Json] = {
        "set_ns": {name: known.present_version.set_ns for name, known in present.items() if known.present_version}
    }
    dates = {secret.username: date for secret, date in histories.with_rotation_date()}
    if dates:
        state["rotate_by_ns"] = dates
        state["versions"] = {name: len(known.versions) for name, known in present.items()}
    return state


async def _read_models(store: SqliteEventStore, folder: Path) -> Mapping[str, Json]:
    return _state_of(await LogHistories(store).now())


SECRETS = GoldenService(
    "secrets",
    EVENT_TYPES,
    (
        FIRST_RELEASE,
        Scenario("refused-calls", REFUSED_CALLS),
        PASSPHRASE_CHANGED,
        STORE_UPGRADED,
        ROTATION,
        LEASES,
        STORES,
    ),
    _state_after,
    _read_models,
)
