"""The password or key of a LIMS, asked from the secrets service each time it is needed and kept nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import grpc
from google.rpc import error_details_pb2
from grpc.aio import Channel
from grpc_status import rpc_status

from labferry.secrets.v1 import secrets_service_pb2 as pb
from labferry.secrets.v1 import secrets_service_pb2_grpc as pb_grpc
from services.lims_gateway.projects.errors import PasswordUnavailableCause, PasswordUnavailableError

if TYPE_CHECKING:
    from labferry.secrets.v1.secrets_service_pb2_grpc import SecretsServiceAsyncStub

# Longer than a channel waits between attempts to connect: a secrets service that has just come back is found.
_TIMEOUT_SECONDS = 5.0
_WAITING_REASONS = frozenset({"SEALED", "NOT_INITIALIZED"})


@final
class Password:
    """A password or key that doesn't show itself."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Password(…)"


class NoPasswordStoredError(Exception):
    """The secrets service answers, and keeps nothing under that name."""


class LimsPasswords:
    """Asks over a channel that proves the gateway's own identity. `username`: the name that it is kept under."""

    def __init__(self, channel: Channel, username: str) -> None:
        self.username = username
        self._secrets: SecretsServiceAsyncStub = pb_grpc.SecretsServiceStub(channel)

    async def fetch(self) -> Password:
        """PasswordUnavailableError when the secrets service is sealed or doesn't answer; NoPasswordStoredError."""
        try:
            answer = await self._secrets.GetSecret(
                pb.GetSecretRequest(username=self.username), timeout=_TIMEOUT_SECONDS, wait_for_ready=True
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise NoPasswordStoredError from None
            raise _as_unavailable(error) from error
        return Password(answer.value)


def _as_unavailable(error: grpc.aio.AioRpcError) -> PasswordUnavailableError:
    problem = error.details() or error.code().name
    if _reason_of(error) in _WAITING_REASONS:
        return PasswordUnavailableError(PasswordUnavailableCause.SEALED, problem)
    match error.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            return PasswordUnavailableError(PasswordUnavailableCause.UNREACHABLE, "it does not answer")
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return PasswordUnavailableError(PasswordUnavailableCause.REFUSED, problem)
        case _:
            return PasswordUnavailableError(PasswordUnavailableCause.UNUSABLE, problem)


def _reason_of(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""
