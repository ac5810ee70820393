"""What every call goes through: request id, log line, identity, authorisation, deadline, error mapping."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import random
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, cast

import grpc
from grpc.aio import ServicerContext

from libs.service_kit.call_log import CallLog
from libs.service_kit.errors import (
    DeadlineExceededError,
    FieldViolation,
    InternalError,
    InvalidRequestError,
    LabferryError,
    PermissionDeniedError,
    SubscriberTooSlowError,
    TooManyRefusalsError,
    UnauthenticatedError,
    to_status,
    told,
)
from libs.service_kit.identities import Identities
from libs.service_kit.identity import Role, require_role, set_current_caller
from libs.service_kit.metrics import CallMetrics
from libs.service_kit.refusals import NoteRefusal, Refusal, RefusalLimit, host_of
from libs.service_kit.request_decoding import UNREADABLE
from libs.service_kit.telemetry import Logger

if TYPE_CHECKING:
    Context = ServicerContext[Any, Any]

UNARY_DEADLINE_SECONDS = 60.0
"""For calls whose client sets none; long-running methods are exempt."""

READER_SECONDS = 30.0
"""A stream whose reader takes nothing for so long is cut off: nothing is kept for a reader that died."""

NoteCall = Callable[..., None]
"""What `CallLog.write` is."""

_MOST_CHARACTERS = 128

_correlation: contextvars.ContextVar[str] = contextvars.ContextVar("correlation_id", default="")


_on_behalf_of: contextvars.ContextVar[str] = contextvars.ContextVar("on_behalf_of", default="")


def current_on_behalf_of() -> str:
    """For whom the caller says that it acts ("x-on-behalf-of"): its word, never an authority. Empty: for itself."""
    return _on_behalf_of.get()


def current_correlation_id() -> str:
    """Joins the events and log lines that one call causes. Empty outside of a call."""
    return _correlation.get()


async def _within_deadline(work: Awaitable[Any]) -> Any:
    """As asyncio.timeout does it, for less: every call of a client that sets no deadline comes through here."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a call is served outside of a task")
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(UNARY_DEADLINE_SECONDS, expire)
    try:
        return await work
    except asyncio.CancelledError:
        if expired and task.uncancel() == 0:
            raise DeadlineExceededError(f"not done after {UNARY_DEADLINE_SECONDS:g} seconds") from None
        raise
    finally:
        timer.cancel()


def _refuse_unreadable(request: Any) -> None:
    if request is UNREADABLE:
        raise InvalidRequestError(FieldViolation("request", "its bytes are no message of this method"))


async def _send(context: Context, response: Any, responses: AsyncGenerator[Any, None]) -> None:
    """SubscriberTooSlowError, raised in the method itself first so that it can say where to resume."""
    try:
        async with asyncio.timeout(READER_SECONDS):
            await context.write(response)
    except TimeoutError:
        error = SubscriberTooSlowError(f"nothing was taken for {READER_SECONDS:g} seconds")
        await responses.athrow(error)
        raise error from None


def _counted(write: NoteCall, metrics: CallMetrics) -> NoteCall:
    def note(method: str, actor: str, request: str, code: grpc.StatusCode, seconds: float, problem: str = "") -> None:
        write(method, actor, request, code, seconds, problem)
        metrics.ended(method, code, seconds)

    return note


class CallGuard:
    """Lets a call through to its servicer when its caller may make it, and maps whatever the servicer raises.

    It wraps the methods when they are published; grpc.aio's interceptors would be asked for a handler at each call.
    """

    def __init__(
        self,
        identities: Identities,
        logger: Logger,
        log: CallLog,
        as_labferry_error: Callable[[Exception], LabferryError | None],
        metrics: CallMetrics | None,
        note_refusal: NoteRefusal,
    ) -> None:
        self._identities = identities
        self._note_refusal = note_refusal
        self._limit = RefusalLimit(time.monotonic)
        self._logger = logger
        self._note = log.write if metrics is None else _counted(log.write, metrics)
        self._as_labferry_error = as_labferry_error

    def guarded(
        self, full_name: str, servicer: object, roles: Mapping[str, frozenset[Role]], unbounded: frozenset[str]
    ) -> object:
        """A servicer with the methods that `roles` names, each for those roles alone.

        `unbounded` methods get no default deadline.
        """
        methods: dict[str, Any] = {}
        for name, allowed in roles.items():
            behaviour = getattr(servicer, name)
            path = f"/{full_name}/{name}"
            if inspect.isasyncgenfunction(behaviour):
                methods[name] = self._stream(path, allowed, behaviour)
            else:
                methods[name] = self._unary(path, allowed, behaviour, bounded=name not in unbounded)
        return SimpleNamespace(**methods)

    def _admit(self, method: str, allowed: frozenset[Role], context: Context) -> str:
        """Sets caller, correlation id and principal for this call. Returns the actor."""
        authorization: str | None = None
        correlation = principal = ""
        for key, value in context.invocation_metadata() or ():
            if not isinstance(value, str):
                continue
            if key == "authorization":
                # Of two that differ, what is in between may have looked at the other one.
                authorization = value if authorization is None else ""
            elif key == "x-request-id" and value.isascii() and value.isprintable():
                correlation = value[:_MOST_CHARACTERS]
            elif key == "x-on-behalf-of":
                principal = value
        # Needs to be unique, not secret: the system's random source would cost a call of the kernel.
        correlation = correlation or f"{random.getrandbits(128):032x}"
        _correlation.set(correlation)
        names = self._names_in_certificate(context) if authorization is None else ()
        try:
            caller = self._identities.authenticate(authorization, names)
        except UnauthenticatedError as error:
            raise self._stranger(method, host_of(context.peer()), error) from None
        set_current_caller(caller)
        try:
            require_role(caller, allowed, method)
        except PermissionDeniedError as error:
            self._note_refusal(Refusal(method, caller.actor, host_of(context.peer()), error.reason.name))
            raise
        if len(principal) > _MOST_CHARACTERS or not principal.isascii() or not principal.isprintable():
            raise InvalidRequestError(FieldViolation("x-on-behalf-of", f"at most {_MOST_CHARACTERS} printable ASCII"))
        _on_behalf_of.set(principal)
        return caller.actor

    def _stranger(self, method: str, host: str, error: UnauthenticatedError) -> LabferryError:
        refusal: LabferryError = error
        seconds = self._limit.exceeded(host)
        if seconds:
            refusal = TooManyRefusalsError(timedelta(seconds=seconds))
        self._note_refusal(Refusal(method, "", host, refusal.reason.name))
        return refusal

    def _names_in_certificate(self, context: Context) -> Sequence[str]:
        # Empty where the call came in plaintext, or without a certificate.
        names = context.auth_context().get("x509_subject_alternative_name", ())
        return [name.decode(errors="replace") for name in names]

    def _unary(
        self,
        method: str,
        allowed: frozenset[Role],
        behaviour: Callable[[Any, Context], Awaitable[Any]],
        *,
        bounded: bool,
    ) -> Any:
        write, clock = self._note, time.perf_counter

        async def call(request: Any, context: Context) -> Any:
            started = clock()
            actor = ""
            try:
                actor = self._admit(method, allowed, context)
                _refuse_unreadable(request)
                if bounded and context.time_remaining() is None:
                    response = await _within_deadline(behaviour(request, context))
                else:
                    response = await behaviour(request, context)
            except Exception as error:  # noqa: BLE001 -- the boundary: whatever it is, the caller gets a status
                await self._refuse(method, actor, context, error, clock() - started)
            except asyncio.CancelledError:
                write(method, actor, current_correlation_id(), grpc.StatusCode.CANCELLED, clock() - started)
                raise
            write(method, actor, current_correlation_id(), grpc.StatusCode.OK, clock() - started)
            return response

        return call

    def _stream(
        self, method: str, allowed: frozenset[Role], behaviour: Callable[[Any, Context], AsyncGenerator[Any, None]]
    ) -> Any:
        write, clock = self._note, time.perf_counter

        async def call(request: Any, context: Context) -> None:
            started = clock()
            actor = ""
            try:
                actor = self._admit(method, allowed, context)
                _refuse_unreadable(request)
                async with aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        await _send(context, response, responses)
            except SubscriberTooSlowError as error:
                # The status waits behind what was sent: a reader that comes back finds it there, without this task.
                with suppress(TimeoutError):
                    async with asyncio.timeout(READER_SECONDS):
                        await self._refuse(method, actor, context, error, clock() - started)
                return
            except Exception as error:  # noqa: BLE001 -- the boundary: whatever it is, the caller gets a status
                await self._refuse(method, actor, context, error, clock() - started)
            except asyncio.CancelledError:
                write(method, actor, current_correlation_id(), grpc.StatusCode.CANCELLED, clock() - started)
                raise
            write(method, actor, current_correlation_id(), grpc.StatusCode.OK, clock() - started)

        return call

    async def _refuse(self, method: str, actor: str, context: Context, error: Exception, seconds: float) -> NoReturn:
        refusal = self._refusal(method, error)
        self._note(method, actor, current_correlation_id(), refusal.code, seconds, told(refusal))
        await cast(Any, context).abort_with_status(to_status(refusal))
        raise AssertionError("abort_with_status always raises")

    def _refusal(self, method: str, error: Exception) -> LabferryError:
        """What the caller gets to see of an error. Of a defect that is an id; the log has the rest."""
        mapped = error if isinstance(error, LabferryError) else self._as_labferry_error(error)
        if mapped is not None:
            return mapped
        error_id = uuid.uuid4().hex
        self._logger.error("internal_error", method=method, error_id=error_id, exc_info=error)
        return InternalError(error_id)
