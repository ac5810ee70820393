"""From the settings of each LIMS to its directory, with everything that this needs."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
from grpc.aio import Channel

from libs.service_kit.channel import TokenFile, open_channel
from libs.service_kit.identity import ServiceName, service_token_file
from libs.service_kit.lims_settings import LimsEndpointSettings, LimsKind
from libs.service_kit.run import ServiceEnvironment, ServiceStartError
from libs.service_kit.work_threads import WorkThreads
from services.lims_gateway.projects.background_refresh import BackgroundRefresh
from services.lims_gateway.projects.cache import ProjectCache
from services.lims_gateway.projects.catalogue import CatalogueFile
from services.lims_gateway.projects.directories import Directories
from services.lims_gateway.projects.directory import Directory, KeptCopies
from services.lims_gateway.projects.elabftw_lims import ElabftwLims
from services.lims_gateway.projects.history import ProjectHistory
from services.lims_gateway.projects.lims_http import LimsHttp
from services.lims_gateway.projects.passwords import LimsPasswords
from services.lims_gateway.projects.project import ProjectStatus
from services.lims_gateway.projects.rest_lims import RestLims
from services.lims_gateway.projects.upstream import Upstream

_NS_A_MINUTE = 60_000_000_000


@asynccontextmanager
async def open_directories(
    environment: ServiceEnvironment, cache: ProjectCache, history: ProjectHistory
) -> AsyncIterator[Directories]:
    """Every configured LIMS, refreshed in the background. ServiceStartError for settings that can never work."""
    configured = tuple(environment.settings.lims.all())
    if not configured:
        yield Directories(())
        return
    async with AsyncExitStack() as resources:
        token_file = service_token_file(environment.settings.state_dir, ServiceName.LIMS_GATEWAY)
        token = await asyncio.to_thread(TokenFile, token_file)
        secrets = open_channel(environment.settings.reached_at(ServiceName.SECRETS), token, environment.settings.tls)
        channel = await resources.enter_async_context(secrets)
        threads = WorkThreads("catalogue")
        resources.callback(threads.close)
        directories = []
        for lims in configured:
            upstream = await _upstream(lims, channel)
            copies = KeptCopies(cache, history, _catalogue(lims, environment, threads))
            ttl = timedelta(hours=lims.cache_ttl_hours)
            directory = Directory(lims.endpoint, upstream, copies, ttl, environment.logger)
            resources.push_async_callback(directory.close)
            watch_ns = int(lims.refresh_while_watched_minutes * _NS_A_MINUTE)
            background = BackgroundRefresh(directory, watch_ns, environment.logger)
            background.start()
            resources.push_async_callback(background.close)
            directories.append(directory)
        yield Directories(directories)


async def _upstream(lims: LimsEndpointSettings, channel: Channel) -> Upstream:
    tls = await asyncio.to_thread(_tls, lims.ca_file)
    try:
        http = LimsHttp(lims.endpoint, tls)
    except httpx.InvalidURL as error:
        raise ServiceStartError(f"lims.endpoint: {lims.endpoint} is no address: {error}") from error
    passwords = LimsPasswords(channel, lims.secret)
    if lims.kind is LimsKind.ELABFTW and lims.category_id is not None:
        statuses = {title: ProjectStatus(status.capitalize()) for title, status in lims.statuses.items()}
        return ElabftwLims(http, lims.category_id, statuses, passwords)
    return RestLims(http, lims.email, passwords)


def _catalogue(
    lims: LimsEndpointSettings, environment: ServiceEnvironment, threads: WorkThreads
) -> CatalogueFile | None:
    if not lims.offline_catalogue_path:
        return None
    produced_by = environment.settings.orchestrator.label or socket.gethostname()
    return CatalogueFile(Path(lims.offline_catalogue_path), lims.endpoint, produced_by, threads, environment.logger)


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    """Certificates are always checked: against a private CA when one is configured, else against the system's."""
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:
        raise ServiceStartError(f"lims.ca_file: {ca_file} can't be used: {error}") from error
