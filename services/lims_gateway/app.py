"""The composition root of the LIMS gateway."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx

from libs.event_log.checkpoint_keeper import keeping_checkpoints
from libs.event_log.log_metrics import LogMetrics
from libs.event_log.open_store import open_event_store
from libs.event_log.published import publish_event_log
from libs.service_kit.channel import open_channel, read_token
from libs.service_kit.identity import ServiceName, service_token_file
from libs.service_kit.run import Composition, ServiceEnvironment, ServiceStartError
from services.lims_gateway.events import EVENT_TYPES
from services.lims_gateway.projects import servicer
from services.lims_gateway.projects.cache import ProjectCache
from services.lims_gateway.projects.directory import Directory
from services.lims_gateway.projects.errors import CacheUnusableError
from services.lims_gateway.projects.passwords import LimsPasswords
from services.lims_gateway.projects.upstream import LimsUpstream


@asynccontextmanager
async def compose(environment: ServiceEnvironment) -> AsyncIterator[Composition]:
    """Opens log, cache and the way to the LIMS, and publishes LimsService and EventLogService.

    Neither the LIMS nor the secrets service has to be up: whoever asks is told.
    """
    lims = environment.settings.lims
    async with AsyncExitStack() as resources:
        store = await open_event_store(environment.settings.event_log.url, environment.name, environment.state_dir)
        resources.push_async_callback(store.close)
        checkpoints = await resources.enter_async_context(
            keeping_checkpoints(
                store,
                environment.name,
                environment.state_dir,
                environment.settings.event_log.checkpoints,
                environment.logger,
            )
        )
        cache = await _open_cache(environment)
        resources.push_async_callback(cache.close)
        upstream: LimsUpstream | None = None
        if lims.endpoint:
            token = await asyncio.to_thread(
                read_token, service_token_file(environment.settings.state_dir, ServiceName.LIMS_GATEWAY)
            )
            channel = await resources.enter_async_context(
                open_channel(environment.settings.listen.secrets, lambda: token)
            )
            tls = await asyncio.to_thread(_tls, lims.ca_file)
            try:
                upstream = LimsUpstream(lims.endpoint, lims.email, LimsPasswords(channel), tls)
            except httpx.InvalidURL as error:
                raise ServiceStartError(f"lims.endpoint: {lims.endpoint} is no address: {error}") from error
            resources.push_async_callback(upstream.close)
        directory = Directory(lims.endpoint, upstream, cache, timedelta(hours=lims.cache_ttl_hours), environment.logger)
        resources.push_async_callback(directory.close)
        yield Composition(
            services=(
                servicer.publish(directory),
                publish_event_log(store, EVENT_TYPES, None, environment.draining, checkpoints=checkpoints),
            ),
            collectors=(LogMetrics(store, None),),
        )


async def _open_cache(environment: ServiceEnvironment) -> ProjectCache:
    try:
        return await ProjectCache.open(environment.state_dir / "projects.sqlite3", environment.logger)
    except CacheUnusableError as error:
        raise ServiceStartError(str(error)) from error


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    """Certificates are always checked: against a private CA when one is configured, else against the system's."""
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:
        raise ServiceStartError(f"lims.ca_file: {ca_file} can't be used: {error}") from error
