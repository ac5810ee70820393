"""The composition root of the secrets service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from libs.event_log.checkpoint_keeper import keeping_checkpoints
from libs.event_log.log_metrics import LogMetrics
from libs.event_log.open_store import open_event_store
from libs.event_log.published import publish_event_log
from libs.event_log.refused_calls import RefusedCalls
from libs.event_log.store import EventStore
from libs.service_kit.run import Composition, ServiceEnvironment
from libs.service_kit.settings import SecretsSettings
from services.secrets import servicer
from services.secrets.audit import Audit
from services.secrets.choose_store import open_first_store
from services.secrets.encrypted_file import EncryptedFile
from services.secrets.events import EVENT_TYPES
from services.secrets.key_check import KeyCheck
from services.secrets.leases import Leases
from services.secrets.listing import Listing
from services.secrets.names import LogHistories
from services.secrets.seal_health import SealHealth
from services.secrets.start import unseal_at_start
from services.secrets.vault import Vault


@asynccontextmanager
async def compose(environment: ServiceEnvironment) -> AsyncIterator[Composition]:
    """Opens log and vault, unseals if it can, and publishes SecretsService and EventLogService."""
    settings = environment.settings.secrets
    store = await open_event_store(environment.settings.event_log.url, environment.name, environment.state_dir)
    async with (
        _closing(store),
        keeping_checkpoints(
            store,
            environment.name,
            environment.state_dir,
            environment.settings.event_log.checkpoints,
            environment.logger,
        ) as checkpoints,
        open_first_store(settings, environment.logger) as first,
    ):
        refused = RefusedCalls(store, environment.logger)
        audit = Audit(store)
        health = SealHealth(servicer.FULL_NAME)
        file = EncryptedFile(
            _file_path(settings, environment.settings.state_dir), KeyCheck(environment.state_dir / "key_check")
        )
        histories = LogHistories(store)

        def tell_seal_change(sealed: bool) -> None:
            health.changed(sealed)
            listing.news()

        vault = Vault(
            file,
            first,
            audit,
            histories,
            tell_seal_change,
            lambda: listing.news(),
            await audit.attempts_so_far(),
        )
        listing = Listing(vault, histories, audit, environment.draining, lambda: datetime.now(UTC))
        leases = Leases(
            vault,
            audit,
            timedelta(seconds=settings.lease_seconds),
            await audit.leases_left_open(),
            lambda: datetime.now(UTC),
        )
        try:
            await unseal_at_start(vault, audit, settings.passphrase_file, environment.logger)
            async with leases.ending():
                yield Composition(
                    services=(
                        servicer.publish(vault, listing, leases),
                        publish_event_log(store, EVENT_TYPES, None, environment.draining, checkpoints=checkpoints),
                    ),
                    note_refusal=refused.note,
                    on_serving=health.begin,
                    not_serving=frozenset({servicer.FULL_NAME}) if vault.sealed else frozenset(),
                    collectors=(LogMetrics(store, None),),
                )
        finally:
            await refused.close()
            await health.end()
            await vault.close()


@asynccontextmanager
async def _closing(store: EventStore) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await store.close()


def _file_path(settings: SecretsSettings, state_dir: Path) -> Path:
    return settings.file or state_dir / "exlab-wizard" / "secrets.enc"
