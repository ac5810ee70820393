"""SecretsService: protobuf to domain and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labferry.secrets.v1 import secrets_service_pb2 as pb
from labferry.secrets.v1 import secrets_service_pb2_grpc as pb_grpc
from libs.service_kit.call import current_correlation_id, current_on_behalf_of
from libs.service_kit.identity import OPERATORS, READERS, current_caller
from libs.service_kit.server import PublishedService
from libs.service_kit.settings import SecretsBackend
from services.secrets import requests
from services.secrets.audit import Asker, PassphraseSource
from services.secrets.names import KnownName
from services.secrets.vault import Vault

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]

FULL_NAME = "labferry.secrets.v1.SecretsService"

_BACKENDS = {
    SecretsBackend.OS_KEYRING: pb.BACKEND_OS_KEYRING,
    SecretsBackend.ENCRYPTED_FILE: pb.BACKEND_ENCRYPTED_FILE,
}

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
    "DeleteSecret": OPERATORS,
    "ListSecrets": OPERATORS,
}


def _asker() -> Asker:
    caller = current_caller()
    return Asker(caller.actor, caller.roles, current_correlation_id(), current_on_behalf_of())


class SecretsServicer(pb_grpc.SecretsServiceServicer):
    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        return self._status()

    async def Initialize(self, request: pb.InitializeRequest, context: Context) -> pb.GetStatusResponse:
        await self._vault.initialize(requests.new_passphrase(request.passphrase), _asker())
        return self._status()

    async def Unseal(self, request: pb.UnsealRequest, context: Context) -> pb.GetStatusResponse:
        await self._vault.unseal(requests.passphrase(request.passphrase), PassphraseSource.CALL, _asker())
        return self._status()

    async def ChangePassphrase(self, request: pb.ChangePassphraseRequest, context: Context) -> pb.GetStatusResponse:
        old, new = requests.passphrase(request.old, "old"), requests.new_passphrase(request.new, "new")
        await self._vault.change_passphrase(old, new, _asker())
        return self._status()

    async def UpgradeStore(self, request: pb.UpgradeStoreRequest, context: Context) -> pb.GetStatusResponse:
        await self._vault.upgrade(requests.passphrase(request.passphrase), _asker())
        return self._status()

    async def Seal(self, request: pb.SealRequest, context: Context) -> pb.GetStatusResponse:
        await self._vault.seal(_asker())
        return self._status()

    async def GetSecret(self, request: pb.GetSecretRequest, context: Context) -> pb.GetSecretResponse:
        value = await self._vault.read(requests.get_request(request), _asker())
        return pb.GetSecretResponse(value=value.reveal())

    async def SetSecret(self, request: pb.SetSecretRequest, context: Context) -> pb.SetSecretResponse:
        wanted = requests.set_request(request)
        return pb.SetSecretResponse(replaced=await self._vault.set(wanted.secret, wanted.value, _asker()))

    async def DeleteSecret(self, request: pb.DeleteSecretRequest, context: Context) -> pb.DeleteSecretResponse:
        wanted = requests.delete_request(request)
        return pb.DeleteSecretResponse(existed=await self._vault.delete(wanted.secret, wanted.reason, _asker()))

    async def ListSecrets(self, request: pb.ListSecretsRequest, context: Context) -> pb.ListSecretsResponse:
        names = await self._vault.list_names(requests.list_request(request), _asker())
        return pb.ListSecretsResponse(secrets=[_name(n) for n in names])

    def _status(self) -> pb.GetStatusResponse:
        status = self._vault.status()
        return pb.GetStatusResponse(
            backend=_BACKENDS[status.backend],
            sealed=status.sealed,
            initialized=status.initialized,
            path=str(status.file or ""),
            format_version=status.format_version or 0,
        )


def _name(known: KnownName) -> pb.SecretName:
    name = pb.SecretName(service=known.secret.service, username=known.secret.username)
    if known.set_ns is not None:
        name.set_time.FromNanoseconds(known.set_ns)
    return name


def publish(vault: Vault) -> PublishedService:
    return PublishedService(FULL_NAME, SecretsServicer(vault), pb_grpc.add_SecretsServiceServicer_to_server, ROLES)
