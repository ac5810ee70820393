"""What the engine has of the secrets service: loans for its work, and dates for its problems."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from grpc.aio import Channel

from libs.event_log.projection import ProjectionRunner
from libs.service_kit.channel import TokenFile, open_channel
from libs.service_kit.identity import ServiceName, service_token_file
from libs.service_kit.run import ServiceEnvironment
from services.sync_engine.jobs.scheduler import Scheduler
from services.sync_engine.secrets.follow_secrets import following_secrets
from services.sync_engine.secrets.loans import SecretLoans
from services.sync_engine.secrets.rotation_dates import RotationDates
from services.sync_engine.secrets.wake_jobs import wake_jobs_without_secret


@dataclass(frozen=True, slots=True)
class EngineSecrets:
    """`dates` are known while they are followed."""

    environment: ServiceEnvironment
    channel: Channel
    loans: SecretLoans
    dates: RotationDates

    def following(
        self, changed: Callable[[], None], projections: ProjectionRunner, scheduler: Scheduler
    ) -> AbstractAsyncContextManager[None]:
        """Follows the secrets service while it is entered. `changed` is called when dates may have changed; jobs that
        waited for secrets are looked at as soon as those can be had again."""
        opened = wake_jobs_without_secret(projections, scheduler)
        return following_secrets(self.channel, self.dates, changed, opened, self.environment.logger)


@asynccontextmanager
async def open_secrets(environment: ServiceEnvironment) -> AsyncIterator[EngineSecrets]:
    """The channel proves the engine's own identity. Nobody needs to listen there yet."""
    settings = environment.settings
    token = await asyncio.to_thread(TokenFile, service_token_file(settings.state_dir, ServiceName.SYNC_ENGINE))
    async with open_channel(settings.reached_at(ServiceName.SECRETS), token, settings.tls) as channel:
        yield EngineSecrets(environment, channel, SecretLoans(channel), RotationDates())
