"""Lends secrets to work in threads: each under a lease of its own, which lives as long as the work has the value."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.rpc import error_details_pb2
from grpc.aio import Channel
from grpc_status import rpc_status

from labferry.secrets.v1 import secrets_service_pb2 as pb
from labferry.secrets.v1 import secrets_service_pb2_grpc as pb_grpc
from services.sync_engine.secrets.purpose import present_purpose
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl, TransferStoppedError
from services.sync_engine.transfer.transport import FailureKind, TransferError

if TYPE_CHECKING:
    from labferry.secrets.v1.secrets_service_pb2_grpc import SecretsServiceAsyncStub

# Longer than a channel waits between attempts to connect: a secrets service that has just come back is found.
_ANSWER_SECONDS = 5.0
_RENEWALS_A_TERM = 3
_WAITING_REASONS = frozenset({"SEALED", "NOT_INITIALIZED"})
_REVOKED = "revoked"

T = TypeVar("T")


@dataclass(slots=True)
class _Loan:
    """`lost`: why the value may not be used any more."""

    lease_id: str
    value: str = field(repr=False)
    renewing: asyncio.Task[None] | None = None
    lost: TransferError | None = None


class SecretLoans:
    """Speaks to the secrets service on the loop that made it; `lent` is for worker threads alone."""

    def __init__(self, channel: Channel) -> None:
        self._secrets: SecretsServiceAsyncStub = pb_grpc.SecretsServiceStub(channel)
        self._loop = asyncio.get_running_loop()

    @contextmanager
    def lent(self, username: str, control: TransferControl) -> Iterator[str]:
        """The value, leased for the present purpose; the lease is renewed meanwhile and revoked at the end. When it is
        lost, `control` ends the work.

        TransferError: SECRET_UNAVAILABLE while the secrets service is sealed or away, or when the lease wasn't renewed
        in time; CONFIGURATION when nothing is kept under that name; AUTHENTICATION when this engine may not read it, or
        somebody revoked the lease.
        """
        loan = self._on_loop(self._borrow(username, present_purpose(), control))
        try:
            yield loan.value
        except TransferStoppedError:
            if loan.lost is not None:
                raise loan.lost from None
            raise
        finally:
            self._on_loop(self._give_back(loan))

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _borrow(self, username: str, purpose: str, control: TransferControl) -> _Loan:
        try:
            lease = await self._secrets.AcquireLease(
                pb.AcquireLeaseRequest(username=username, purpose=purpose),
                timeout=_ANSWER_SECONDS,
                wait_for_ready=True,
            )
        except grpc.aio.AioRpcError as error:
            raise _failure(username, error) from error
        loan = _Loan(lease.lease_id, "")
        try:
            wanted = pb.GetSecretRequest(username=username, lease_id=lease.lease_id)
            loan.value = (await self._secrets.GetSecret(wanted, timeout=_ANSWER_SECONDS)).value
        except grpc.aio.AioRpcError as error:
            await self._give_back(loan)
            raise _failure(username, error) from error
        term = (lease.expire_time.ToDatetime() - lease.grant_time.ToDatetime()).total_seconds()
        renewing = self._renew(loan, username, term / _RENEWALS_A_TERM, control)
        loan.renewing = asyncio.create_task(renewing, name=f"lease of {username}")
        return loan

    async def _renew(self, loan: _Loan, username: str, pause: float, control: TransferControl) -> None:
        request = pb.RenewLeaseRequest(lease_id=loan.lease_id)
        while True:
            await asyncio.sleep(pause)
            try:
                await self._secrets.RenewLease(request, timeout=_ANSWER_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    # One that is restarted knows the lease still, and gives it time to be renewed.
                    continue
                loan.lost = _failure(username, error)
                control.stop(StopReason.SECRET_LOST)
                return

    async def _give_back(self, loan: _Loan) -> None:
        if loan.renewing is not None:
            loan.renewing.cancel()
            await asyncio.wait({loan.renewing})
        loan.value = ""
        if loan.lost is not None:
            return
        try:
            await self._secrets.RevokeLease(pb.RevokeLeaseRequest(lease_id=loan.lease_id), timeout=_ANSWER_SECONDS)
        except grpc.aio.AioRpcError:
            # It has ended, or ends by itself: nobody renews it any more.
            return


def _failure(username: str, error: grpc.aio.AioRpcError) -> TransferError:
    said = error.details() or error.code().name
    info = _info_of(error)
    if info.reason in _WAITING_REASONS:
        return TransferError(FailureKind.SECRET_UNAVAILABLE, f"the secrets service can't give {username}: {said}")
    if info.reason == "LEASE_NOT_LIVE":
        if info.metadata["end"] == _REVOKED:
            return TransferError(FailureKind.AUTHENTICATION, f"somebody revoked the lease of {username}")
        return TransferError(
            FailureKind.SECRET_UNAVAILABLE, f"the lease of {username} ended: it wasn't renewed in time"
        )
    match error.code():
        case grpc.StatusCode.NOT_FOUND:
            return TransferError(
                FailureKind.CONFIGURATION,
                f"the secrets service keeps nothing under {username}: labferry secret set {username}",
            )
        case grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.UNAUTHENTICATED:
            return TransferError(FailureKind.AUTHENTICATION, f"the secrets service refuses {username}: {said}")
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED if not info.reason:
            return TransferError(FailureKind.SECRET_UNAVAILABLE, "the secrets service does not answer")
        case _:
            return TransferError(FailureKind.SECRET_UNAVAILABLE, f"the secrets service can't give {username}: {said}")


def _info_of(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """Empty when there is none."""
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            break
    return info
