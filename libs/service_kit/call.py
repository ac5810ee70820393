"""The one interceptor of every server: request id, log line, identity, authorisation, deadline, error mapping."""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import grpc
from grpc.aio import ServerInterceptor, ServicerContext

from libs.service_kit.errors import DeadlineExceededError, InternalError, LabferryError, to_status
from libs.service_kit.identity import Identities, Role, require_role, set_current_caller
from libs.service_kit.telemetry import Logger

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = ServicerContext[Any, Any]

UNARY_DEADLINE_SECONDS = 60.0
"""For calls whose client sets none; long-running methods are exempt."""

_correlation: contextvars.ContextVar[str] = contextvars.ContextVar("correlation_id", default="")


def current_correlation_id() -> str:
    """Joins the events and log lines that one call causes. Empty outside of a call."""
    return _correlation.get()


async def _within_deadline(work: Awaitable[Any]) -> Any:
    timeout = asyncio.timeout(UNARY_DEADLINE_SECONDS)
    try:
        async with timeout:
            return await work
    except TimeoutError:
        if timeout.expired():
            raise DeadlineExceededError(f"not done after {UNARY_DEADLINE_SECONDS:.0f} seconds") from None
        raise


class CallInterceptor(ServerInterceptor):  # type: ignore[type-arg]
    """Lets a call through to its servicer when its caller may make it, and maps whatever the servicer raises.

    `roles` maps each full method name to the roles that may call it; a method that it lacks is refused. Methods that
    begin with one of `open_prefixes` (health, reflection) need no identity. `unbounded` ones get no default deadline.
    """

    def __init__(
        self,
        identities: Identities,
        roles: Mapping[str, frozenset[Role]],
        open_prefixes: tuple[str, ...],
        unbounded: frozenset[str],
        logger: Logger,
        as_labferry_error: Callable[[Exception], LabferryError | None],
    ) -> None:
        self._identities = identities
        self._roles = roles
        self._open_prefixes = open_prefixes
        self._unbounded = unbounded
        self._logger = logger
        self._as_labferry_error = as_labferry_error
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        method: str = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None or method.startswith(self._open_prefixes):
            return handler
        if handler.response_streaming:
            wrapped = grpc.unary_stream_rpc_method_handler(
                self._stream(method, cast(Any, handler.unary_stream)),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        else:
            wrapped = grpc.unary_unary_rpc_method_handler(
                self._unary(method, cast(Any, handler.unary_unary)),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        self._wrapped[method] = wrapped
        return wrapped

    def _admit(self, method: str, context: Context) -> tuple[str, str]:
        """Sets caller and correlation id for this call. Returns the actor and the correlation id."""
        authorization: str | None = None
        correlation = ""
        for key, value in context.invocation_metadata() or ():
            if not isinstance(value, str):
                continue
            if key == "authorization":
                authorization = value
            elif key == "x-request-id" and value.isascii() and value.isprintable():
                correlation = value[:128]
        # Needs to be unique, not secret: the system's random source would cost a call of the kernel.
        correlation = correlation or f"{random.getrandbits(128):032x}"
        _correlation.set(correlation)
        caller = self._identities.authenticate(authorization)
        set_current_caller(caller)
        require_role(caller, self._roles.get(method, frozenset()), method)
        return caller.actor, correlation

    def _unary(self, method: str, behaviour: Callable[[Any, Context], Awaitable[Any]]) -> Any:
        async def call(request: Any, context: Context) -> Any:
            started = time.perf_counter()
            actor = correlation = ""
            try:
                actor, correlation = self._admit(method, context)
                if context.time_remaining() is None and method not in self._unbounded:
                    response = await _within_deadline(behaviour(request, context))
                else:
                    response = await behaviour(request, context)
            except Exception as error:  # noqa: BLE001 -- the boundary: whatever it is, the caller gets a status
                status = self._status(method, error)
                self._log(method, actor, current_correlation_id(), status.code, started, error)
                await cast(Any, context).abort_with_status(status)
            except asyncio.CancelledError:
                self._log(method, actor, correlation, grpc.StatusCode.CANCELLED, started, None)
                raise
            self._log(method, actor, correlation, grpc.StatusCode.OK, started, None)
            return response

        return call

    def _stream(self, method: str, behaviour: Callable[[Any, Context], AsyncIterator[Any]]) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            started = time.perf_counter()
            actor = correlation = ""
            try:
                actor, correlation = self._admit(method, context)
                async for response in behaviour(request, context):
                    yield response
            except Exception as error:  # noqa: BLE001 -- the boundary: whatever it is, the caller gets a status
                status = self._status(method, error)
                self._log(method, actor, current_correlation_id(), status.code, started, error)
                await cast(Any, context).abort_with_status(status)
            except (asyncio.CancelledError, GeneratorExit):
                self._log(method, actor, correlation, grpc.StatusCode.CANCELLED, started, None)
                raise
            self._log(method, actor, correlation, grpc.StatusCode.OK, started, None)

        return call

    def _status(self, method: str, error: Exception) -> grpc.Status:
        if isinstance(error, LabferryError):
            return to_status(error)
        mapped = self._as_labferry_error(error)
        if mapped is not None:
            return to_status(mapped)
        error_id = uuid.uuid4().hex
        self._logger.error("internal_error", method=method, error_id=error_id, exc_info=error)
        return to_status(InternalError(error_id))

    def _log(
        self,
        method: str,
        actor: str,
        correlation: str,
        code: grpc.StatusCode,
        started: float,
        error: Exception | None,
    ) -> None:
        self._logger.info(
            "call",
            method=method,
            actor=actor,
            request=correlation,
            code=code.name,
            ms=round((time.perf_counter() - started) * 1000, 2),
            **({"problem": str(error)} if isinstance(error, LabferryError) else {}),
        )
