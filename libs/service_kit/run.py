"""Runs one service as a process: configuration, logging, identities, serving, and an orderly end on SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop
from prometheus_client.registry import Collector

from libs.service_kit.call_log import CallLog
from libs.service_kit.config import ConfigurationError, load_configuration
from libs.service_kit.errors import LabferryError
from libs.service_kit.identities import Identities, ensure_identities
from libs.service_kit.identity import ServiceName
from libs.service_kit.metrics import CallMetrics, metrics_registry, serving_metrics
from libs.service_kit.parent import end_with_parent
from libs.service_kit.refusals import NoteRefusal
from libs.service_kit.server import CannotListenError, PublishedService, ServiceServer
from libs.service_kit.settings import Settings
from libs.service_kit.telemetry import Logger, configure_logging
from libs.service_kit.transport_security import TlsFilesError, server_credentials

_GRACE_SECONDS = 5.0
_SWITCH_SECONDS = 0.0005
EXIT_CONFIGURATION = 78
EXIT_CANNOT_START = 75


class ServiceStartError(Exception):
    """A service can't start; one plain sentence says why."""


@dataclass(frozen=True, slots=True)
class ServiceEnvironment:
    """What a composition root gets. `draining` is set when the service begins to end."""

    name: ServiceName
    settings: Settings
    state_dir: Path
    identities: Identities
    logger: Logger
    draining: asyncio.Event


@dataclass(slots=True)
class Composition:
    """What a composition root makes: the services to publish, and what to do once the server listens.

    `not_serving`: full names of services whose health is NOT_SERVING from the first moment on. `collectors`: what it
    tells Prometheus, beside its calls. `note_refusal` hears of each call that is refused for want of identity or role.
    """

    services: Sequence[PublishedService]
    note_refusal: NoteRefusal
    on_serving: Callable[[ServiceServer], None] = lambda _: None
    not_serving: frozenset[str] = frozenset()
    collectors: Sequence[Collector] = ()


Compose = Callable[[ServiceEnvironment], AbstractAsyncContextManager[Composition]]


AsLabferryError = Callable[[Exception], LabferryError | None]


def run_service(name: ServiceName, compose: Compose, as_labferry_error: AsLabferryError) -> int:
    """The main function of a service. Exit status: 0 ended in order, 78 wrong configuration, 75 can't start.

    `as_labferry_error` maps the errors of the libraries that the service is built on to what callers get to see.
    """
    parser = argparse.ArgumentParser(prog=f"python -m services.{name}")
    parser.add_argument("--config", type=Path, help="labferry.yaml; LABFERRY_CONFIG when absent")
    parser.add_argument("--end-with-parent", type=int, metavar="PID", help="drain when this parent process dies")
    parser.add_argument("--announce-to", type=int, metavar="FD", help="write the address there once it is served")
    arguments = parser.parse_args()
    if arguments.end_with_parent is not None:
        end_with_parent(arguments.end_with_parent)
    # The event log's committer needs the interpreter's lock a few times a batch; at the default of 5 ms each, waiting
    # for it is much of a write's time (measured: 2,150 calls/s against 2,630 at this interval).
    sys.setswitchinterval(_SWITCH_SECONDS)
    # A core file would hold whatever secrets the process has in memory.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The soft limit of most systems, 1,024, is for programs that use select(); a transfer opens hundreds of files.
    most_open = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_open, most_open))
    try:
        loaded = load_configuration(arguments.config)
    except ConfigurationError as error:
        return _wrong_configuration(error)
    logger = configure_logging(loaded.settings.logging, name)
    for notice in loaded.notices:
        logger.warning("configuration_notice", notice=notice)
    try:
        uvloop.run(_serve(name, loaded.settings, compose, as_labferry_error, logger, arguments.announce_to))
    except ConfigurationError as error:
        return _wrong_configuration(error)
    except (CannotListenError, ServiceStartError, TlsFilesError, OSError) as error:
        return _cannot_start(logger, error)
    except Exception as error:
        if as_labferry_error(error) is None:
            raise
        return _cannot_start(logger, error)
    return 0


def _wrong_configuration(error: ConfigurationError) -> int:
    print(error, file=sys.stderr)  # noqa: T201 -- for whoever wrote it; there may be no log yet
    return EXIT_CONFIGURATION


def _cannot_start(logger: Logger, error: Exception) -> int:
    logger.error("cannot_start", problem=str(error))
    return EXIT_CANNOT_START


async def _serve(
    name: ServiceName,
    settings: Settings,
    compose: Compose,
    as_labferry_error: AsLabferryError,
    logger: Logger,
    announce_to: int | None,
) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, ending.set)
    identities = ensure_identities(settings.state_dir, None if settings.tls is None else settings.tls.callers_by_name())
    state_dir = settings.state_dir / name
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = ServiceEnvironment(name, settings, state_dir, identities, logger, asyncio.Event())
    async with compose(environment) as composition, _serving(environment, composition, as_labferry_error) as address:
        logger.info("serving", address=address)
        if announce_to is not None:
            os.write(announce_to, f"{address}\n".encode())
            os.close(announce_to)
        await ending.wait()
        logger.info("draining")
    logger.info("ended")


@asynccontextmanager
async def _serving(
    environment: ServiceEnvironment, composition: Composition, as_labferry_error: AsLabferryError
) -> AsyncIterator[str]:
    settings, logger = environment.settings, environment.logger
    address = settings.listens_at(environment.name)
    log = CallLog(settings.logging, environment.name, logger)
    credentials = None
    if settings.tls is not None:
        credentials = await asyncio.to_thread(
            server_credentials, settings.tls, lambda problem: logger.warning("certificate_not_taken", problem=problem)
        )
    async with _metrics(environment, composition) as metrics:
        server = ServiceServer(
            address,
            composition.services,
            environment.identities,
            logger,
            log,
            as_labferry_error,
            metrics,
            credentials=credentials,
            health_address=getattr(settings.health.listen, environment.name),
            note_refusal=composition.note_refusal,
        )
        for name in composition.not_serving:
            await server.set_serving(name, False)
        listening = await server.start()
        composition.on_serving(server)
        try:
            yield listening
        finally:
            await server.drain(environment.draining, _GRACE_SECONDS)


@asynccontextmanager
async def _metrics(environment: ServiceEnvironment, composition: Composition) -> AsyncIterator[CallMetrics | None]:
    address = getattr(environment.settings.metrics.listen, environment.name)
    if address is None:
        yield None
        return
    registry = metrics_registry(composition.collectors)
    metrics = CallMetrics(registry)
    async with serving_metrics(address, registry) as listening:
        environment.logger.info("serving_metrics", address=listening)
        yield metrics
