"""SecretsService: protobuf to domain and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from labferry.secrets.v1 import secrets_service_pb2 as pb
from labferry.secrets.v1 import secrets_service_pb2_grpc as pb_grpc
from libs.service_kit.call import current_correlation_id, current_on_behalf_of
from libs.service_kit.identity import OPERATORS, READERS, Role, current_caller
from libs.service_kit.server import PublishedService
from libs.service_kit.settings import SecretsBackend
from services.secrets import requests
from services.secrets.audit import Asker, PassphraseSource
from services.secrets.history import Version
from services.secrets.leases import Leases, LiveLease
from services.secrets.listing import Listing, Standing
from services.secrets.names import KnownName
from services.secrets.vault import Vault

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]

FULL_NAME = "labferry.secrets.v1.SecretsService"

_BACKENDS = {
    SecretsBackend.OS_KEYRING: pb.BACKEND_OS_KEYRING,
    SecretsBackend.ENCRYPTED_FILE: pb.BACKEND_ENCRYPTED_FILE,
    SecretsBackend.OPENBAO: pb.BACKEND_OPENBAO,
}

# The engine tells of overdue secrets as problems.
FOLLOWERS = OPERATORS | {Role.SERVICE_SYNC_ENGINE}

ROLES = {
    "GetStatus": READERS,
    "Initialize": OPERATORS,
    "Unseal": OPERATORS,
    "ChangePassphrase": OPERATORS,
    "UpgradeStore": OPERATORS,
    "Seal": OPERATORS,
    # Whoever is known may ask; access.py decides, so that each refusal is an event.
    "GetSecret": READERS,
    "SetSecret": OPERATORS,
    "SetRotateBy": OPERATORS,
    "DeleteSecret": OPERATORS,
    "ListSecrets": OPERATORS,
    "ListSecretVersions": OPERATORS,
    "WatchSecrets": FOLLOWERS,
    # As of GetSecret: the domain decides, so that each refusal is an event.
    "AcquireLease": READERS,
    "RenewLease": READERS,
    "RevokeLease": READERS,
    "ListLeases": OPERATORS,
}


def _asker() -> Asker:
    caller = current_caller()
    return Asker(caller.actor, caller.roles, current_correlation_id(), current_on_behalf_of())


class SecretsServicer(pb_grpc.SecretsServiceServicer):
    def __init__(self, vault: Vault, listing: Listing, leases: Leases) -> None:
        self._vault = vault
        self._listing = listing
        self._leases = leases

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        return await self._status()

    async def Initialize(self, request: pb.InitializeRequest, context: Context) -> pb.GetStatusResponse:
        await self._vault.initialize(requests.new_passphrase(request.passphrase), _asker())
        return await self._status()

    async def Unseal(self, request: pb.UnsealRequest, context: Context) -> pb.GetStatusResponse:
        await self._vault.unseal(requests.passphrase(request.passphrase), PassphraseSource.CALL, _asker())
        return await self._status()

    async def ChangePassphrase(self, request: pb.ChangePassphraseRequest, context: Context) -> pb.GetStatusResponse:
        old, new = requests.passphrase(request.old, "old"), requests.new_passphrase(request.new, "new")
        await self._vault.change_passphrase(old, new, _asker())
        return await self._status()

    async def UpgradeStore(self, request: pb.UpgradeStoreRequest, context: Context) -> pb.GetStatusResponse:
        await self._vault.upgrade(requests.passphrase(request.passphrase), _asker())
        return await self._status()

    async def Seal(self, request: pb.SealRequest, context: Context) -> pb.GetStatusResponse:
        await self._vault.seal(_asker())
        return await self._status()

    async def GetSecret(self, request: pb.GetSecretRequest, context: Context) -> pb.GetSecretResponse:
        wanted, by = requests.get_request(request), _asker()
        if wanted.lease_id:
            value = await self._leases.read(wanted.secret, wanted.lease_id, by)
        else:
            value = await self._vault.read(wanted.secret, by)
        return pb.GetSecretResponse(value=value.reveal())

    async def AcquireLease(self, request: pb.AcquireLeaseRequest, context: Context) -> pb.Lease:
        wanted = requests.acquire_request(request)
        return _lease(await self._leases.acquire(wanted.secret, wanted.purpose, _asker()))

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Context) -> pb.Lease:
        return _lease(self._leases.renew(requests.renew_request(request), _asker()))

    async def RevokeLease(self, request: pb.RevokeLeaseRequest, context: Context) -> pb.RevokeLeaseResponse:
        by = _asker()
        wanted = requests.revoke_request(request, is_holder=self._leases.is_holder(request.lease_id, by))
        await self._leases.revoke(wanted.lease_id, wanted.reason, by)
        return pb.RevokeLeaseResponse()

    async def ListLeases(self, request: pb.ListLeasesRequest, context: Context) -> pb.ListLeasesResponse:
        return pb.ListLeasesResponse(leases=[_lease(lease) for lease in self._leases.live()])

    async def SetSecret(self, request: pb.SetSecretRequest, context: Context) -> pb.SetSecretResponse:
        wanted = requests.set_request(request)
        done = await self._vault.set(wanted.secret, wanted.value, wanted.rotate_by, _asker())
        return pb.SetSecretResponse(replaced=done.replaced, version=done.version)

    async def SetRotateBy(self, request: pb.SetRotateByRequest, context: Context) -> pb.SetRotateByResponse:
        wanted = requests.rotate_by_request(request)
        await self._vault.set_rotate_by(wanted.secret, wanted.rotate_by, _asker())
        return pb.SetRotateByResponse(secret=self._name(await self._listing.name(wanted.secret)))

    async def DeleteSecret(self, request: pb.DeleteSecretRequest, context: Context) -> pb.DeleteSecretResponse:
        wanted = requests.delete_request(request)
        return pb.DeleteSecretResponse(existed=await self._vault.delete(wanted.secret, wanted.reason, _asker()))

    async def ListSecrets(self, request: pb.ListSecretsRequest, context: Context) -> pb.ListSecretsResponse:
        names = await self._listing.names(requests.list_request(request), _asker())
        return pb.ListSecretsResponse(secrets=[self._name(n) for n in names])

    async def ListSecretVersions(
        self, request: pb.ListSecretVersionsRequest, context: Context
    ) -> pb.ListSecretVersionsResponse:
        versions = await self._listing.versions(requests.versions_request(request), _asker())
        return pb.ListSecretVersionsResponse(versions=[_version(v) for v in versions])

    async def WatchSecrets(
        self, request: pb.WatchSecretsRequest, context: Context
    ) -> AsyncIterator[pb.WatchSecretsResponse]:
        async with aclosing(self._listing.follow(_asker())) as standings:
            async for standing in standings:
                yield _standing(standing)

    async def _status(self) -> pb.GetStatusResponse:
        status = await self._vault.status()
        return pb.GetStatusResponse(
            backend=_BACKENDS[status.backend],
            sealed=status.sealed,
            initialized=status.initialized,
            path=status.place,
            format_version=status.format_version or 0,
            problem=status.problem,
        )

    def _name(self, known: KnownName) -> pb.SecretName:
        history = known.history
        name = pb.SecretName(
            service=known.secret.service,
            username=known.secret.username,
            version=len(history.versions),
            overdue=self._listing.is_overdue(history),
        )
        if history.present_version is not None:
            name.set_time.FromNanoseconds(history.present_version.set_ns)
            name.set_by = history.present_version.set_by
        if history.rotate_by_ns is not None:
            name.rotate_by.FromNanoseconds(history.rotate_by_ns)
        return name


def _version(version: Version) -> pb.SecretVersion:
    message = pb.SecretVersion(version=version.number, set_by=version.set_by, store_version=version.store_version)
    message.set_time.FromNanoseconds(version.set_ns)
    if version.rotate_by_ns is not None:
        message.rotate_by.FromNanoseconds(version.rotate_by_ns)
    return message


def _standing(standing: Standing) -> pb.WatchSecretsResponse:
    message = pb.WatchSecretsResponse(sealed=standing.sealed)
    for date in standing.dates:
        told = message.rotation_dates.add(service=date.secret.service, username=date.secret.username)
        told.rotate_by.FromNanoseconds(date.rotate_by_ns)
    return message


def _lease(live: LiveLease) -> pb.Lease:
    lease = live.lease
    message = pb.Lease(
        lease_id=lease.lease_id,
        service=lease.secret.service,
        username=lease.secret.username,
        purpose=lease.purpose,
        holder=lease.holder,
    )
    message.grant_time.FromDatetime(live.granted)
    message.expire_time.FromDatetime(live.expires)
    return message


def publish(vault: Vault, listing: Listing, leases: Leases) -> PublishedService:
    servicer = SecretsServicer(vault, listing, leases)
    return PublishedService(FULL_NAME, servicer, pb_grpc.add_SecretsServiceServicer_to_server, ROLES)
