"""How the engine reaches the secrets service: over a channel that proves its own identity."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpc.aio import Channel

from libs.service_kit.channel import TokenFile, open_channel
from libs.service_kit.identity import ServiceName, service_token_file
from libs.service_kit.run import ServiceEnvironment


@asynccontextmanager
async def secrets_channel(environment: ServiceEnvironment) -> AsyncIterator[Channel]:
    """Open while it is entered; nobody needs to listen there yet."""
    settings = environment.settings
    token = await asyncio.to_thread(TokenFile, service_token_file(settings.state_dir, ServiceName.SYNC_ENGINE))
    async with open_channel(settings.reached_at(ServiceName.SECRETS), token, settings.tls) as channel:
        yield channel
