"""The composition root of the LIMS gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from libs.event_log.checkpoint_keeper import keeping_checkpoints
from libs.event_log.log_metrics import LogMetrics
from libs.event_log.open_store import open_event_store
from libs.event_log.published import publish_event_log
from libs.event_log.refused_calls import RefusedCalls
from libs.service_kit.run import Composition, ServiceEnvironment, ServiceStartError
from services.lims_gateway.configured_lims import open_directories
from services.lims_gateway.events import EVENT_TYPES
from services.lims_gateway.projects import servicer
from services.lims_gateway.projects.cache import ProjectCache
from services.lims_gateway.projects.errors import CacheUnusableError
from services.lims_gateway.projects.history import ProjectHistory
from services.lims_gateway.projects.watch import ProjectWatch


@asynccontextmanager
async def compose(environment: ServiceEnvironment) -> AsyncIterator[Composition]:
    """Opens log, cache and the ways to every LIMS, and publishes LimsService and EventLogService.

    Neither a LIMS nor the secrets service has to be up: whoever asks is told.
    """
    async with AsyncExitStack() as resources:
        store = await open_event_store(environment.settings.event_log.url, environment.name, environment.state_dir)
        resources.push_async_callback(store.close)
        refused = RefusedCalls(store, environment.logger)
        resources.push_async_callback(refused.close)
        checkpoints = await resources.enter_async_context(
            keeping_checkpoints(
                store,
                environment.name,
                environment.state_dir,
                environment.settings.event_log.checkpoints,
                environment.logger,
            )
        )
        history = await ProjectHistory.load(store)
        cache = await _open_cache(environment)
        resources.push_async_callback(cache.close)
        directories = await resources.enter_async_context(open_directories(environment, cache, history))
        yield Composition(
            services=(
                servicer.publish(directories, ProjectWatch(store, history, environment.draining)),
                publish_event_log(store, EVENT_TYPES, None, environment.draining, checkpoints=checkpoints),
            ),
            note_refusal=refused.note,
            collectors=(LogMetrics(store, None),),
        )


async def _open_cache(environment: ServiceEnvironment) -> ProjectCache:
    try:
        return await ProjectCache.open(environment.state_dir / "projects.sqlite3", environment.logger)
    except CacheUnusableError as error:
        raise ServiceStartError(str(error)) from error
