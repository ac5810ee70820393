"""How a service runs: one gRPC server with health, reflection, identity, and a drain that loses nothing."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from libs.service_kit.call import CallGuard
from libs.service_kit.call_log import CallLog
from libs.service_kit.errors import LabferryError
from libs.service_kit.identities import Identities
from libs.service_kit.identity import Role
from libs.service_kit.metrics import CallMetrics
from libs.service_kit.refusals import NoteRefusal
from libs.service_kit.request_decoding import TolerantDecoding
from libs.service_kit.telemetry import Logger

_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
_MAX_CONCURRENT_RPCS = 4096
_MOST_HEALTH_CHECKS = 64
_LONGEST_SOCKET_PATH = 107
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class CannotListenError(Exception):
    """Nobody can be served at the address; the message says why."""

    def __init__(self, address: str, why: str = "it is in use, or this user may not use it") -> None:
        super().__init__(f"can't listen on {address}: {why}")
        self.address = address


@dataclass(frozen=True, slots=True)
class PublishedService:
    """One gRPC service: its servicer, how it is added, and which roles may call which method.

    `unbounded`: methods that may take longer than the default deadline of a unary call.
    """

    full_name: str
    servicer: Any
    add_to_server: Callable[[Any, Any], None]
    roles: Mapping[str, frozenset[Role]]
    unbounded: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        public = {n for n in dir(self.servicer) if n[0].isupper() and callable(getattr(self.servicer, n))}
        if public != set(self.roles):
            raise ValueError(
                f"{self.full_name}: roles are given for {sorted(self.roles)}, methods are {sorted(public)}"
            )


class ServiceServer:
    """A gRPC server on one address or Unix socket, and, if asked for, its health alone on another."""

    def __init__(
        self,
        address: str,
        services: Sequence[PublishedService],
        identities: Identities,
        logger: Logger,
        log: CallLog,
        as_labferry_error: Callable[[Exception], LabferryError | None],
        metrics: CallMetrics | None = None,
        *,
        credentials: grpc.ServerCredentials | None = None,
        health_address: str | None = None,
        note_refusal: NoteRefusal = lambda _: None,
    ) -> None:
        """`metrics` None: nobody counts the calls. `credentials` None: plaintext; they never concern a Unix socket.
        `health_address`: answers health checks there too, in plaintext. `note_refusal` hears of each refused call."""
        self._address = address
        self._credentials = None if address.startswith("unix:") else credentials
        self._health_address = health_address
        self._health_server: grpc.aio.Server | None = None
        self._services = services
        guard = CallGuard(identities, logger, log, as_labferry_error, metrics, note_refusal)
        self._server = grpc.aio.server(options=list(_OPTIONS), maximum_concurrent_rpcs=_MAX_CONCURRENT_RPCS)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for service in services:
            guarded = guard.guarded(service.full_name, service.servicer, service.roles, service.unbounded)
            service.add_to_server(guarded, TolerantDecoding(self._server))
        self._add_reflection()
        self._not_serving: set[str] = set()

    def _add_reflection(self) -> None:
        # The v1 name is served but not listed: no descriptor of it is installed, and what is listed is described.
        names = [*(s.full_name for s in self._services), health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self._server)
        # The two versions of the protocol differ in nothing but the name of the service.
        servicer = ReflectionServicer(names)
        handler = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": handler}),)
        )

    async def start(self) -> str:
        """Listens and serves. Returns the address, with the port that the system chose for port 0."""
        if self._address.startswith("unix:"):
            if len(os.fsencode(self._address)) - len("unix:") > _LONGEST_SOCKET_PATH:
                raise CannotListenError(self._address, f"a socket's path has {_LONGEST_SOCKET_PATH} bytes at most")
            _clear_stale_socket(Path(self._address.removeprefix("unix:")), self._address)
        port = _listen(self._server, self._address, self._credentials)
        await self._server.start()
        if self._health_address is not None:
            self._health_server = grpc.aio.server(options=list(_OPTIONS), maximum_concurrent_rpcs=_MOST_HEALTH_CHECKS)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._health_server)
            _listen(self._health_server, self._health_address, None)
            await self._health_server.start()
        if self._address.startswith("unix:"):
            os.chmod(self._address.removeprefix("unix:"), 0o600)
        for name in ("", *(s.full_name for s in self._services)):
            await self.set_serving(name, name not in self._not_serving)
        if self._address.endswith(":0"):
            return f"{self._address.rpartition(':')[0]}:{port}"
        return self._address

    async def set_serving(self, service: str, serving: bool) -> None:
        """Health of one service by its full name; "" is the overall health."""
        if serving:
            self._not_serving.discard(service)
        else:
            self._not_serving.add(service)
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set(service, status)

    async def drain(self, draining: asyncio.Event, grace_seconds: float) -> None:
        """Stops taking calls: health says so first, own streams end, calls in work get `grace_seconds`."""
        await self._health.enter_graceful_shutdown()
        draining.set()
        await self._server.stop(grace_seconds)
        if self._health_server is not None:
            await self._health_server.stop(None)


def _listen(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    try:
        if credentials is not None:
            return server.add_secure_port(address, credentials)
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise CannotListenError(address) from error


def _clear_stale_socket(path: Path, address: str) -> None:
    """Removes a socket that nobody listens on any more. CannotListenError when somebody does."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise CannotListenError(address) from error
    raise CannotListenError(address)
