"""What holds wherever values lie: the suite that every backend subclasses."""

from __future__ import annotations

import grpc

from labferry.secrets.v1 import secrets_service_pb2 as pb
from tests.integration.secrets.running_service import RunningService, refusal

ODD_NAMES = ("..", ".", "a/b", "a%2Fb", "%", "ü name 🔑", "nas:SCOPE_01", "x.y", "?q=1#f", "lims:other@lab")


class StoreConformance:
    """Subclasses give the fixture `service`: one that serves, with nothing stored yet."""

    backend: int

    async def test_values_go_in_are_read_replaced_and_deleted(self, service: RunningService) -> None:
        operator, gateway = await service.secrets(), await service.secrets("lims_gateway")
        status = await operator.GetStatus(pb.GetStatusRequest())
        assert (status.backend, status.sealed, status.initialized, status.problem) == (self.backend, False, True, "")
        read = pb.GetSecretRequest(username="lims")
        assert await refusal(gateway.GetSecret(read)) == (grpc.StatusCode.NOT_FOUND, "SECRET_NOT_FOUND")
        value = 'tricky "\\ \n ü 🔑' + "x" * 20_000
        first = await operator.SetSecret(pb.SetSecretRequest(username="lims", value="first"))
        second = await operator.SetSecret(pb.SetSecretRequest(username="lims", value=value))
        assert [(a.replaced, a.version) for a in (first, second)] == [(False, 1), (True, 2)]
        assert (await gateway.GetSecret(read)).value == value
        delete = pb.DeleteSecretRequest(username="lims", reason="r")
        assert (await operator.DeleteSecret(delete)).existed
        assert not (await operator.DeleteSecret(delete)).existed
        assert await refusal(gateway.GetSecret(read)) == (grpc.StatusCode.NOT_FOUND, "SECRET_NOT_FOUND")
        again = await operator.SetSecret(pb.SetSecretRequest(username="lims", value="again"))
        assert (again.replaced, again.version) == (False, 3)
        assert (await gateway.GetSecret(read)).value == "again"
        versions = await operator.ListSecretVersions(pb.ListSecretVersionsRequest(username="lims"))
        assert [v.version for v in versions.versions] == [3, 2, 1]

    async def test_every_name_is_its_own(self, service: RunningService) -> None:
        operator, engine = await service.secrets(), await service.secrets("sync_engine")
        for name in ODD_NAMES:
            set_ = pb.SetSecretRequest(username=name, value=f"value of {name}")
            assert not (await operator.SetSecret(set_)).replaced, name
        listed = (await operator.ListSecrets(pb.ListSecretsRequest())).secrets
        assert [name.username for name in listed] == sorted(ODD_NAMES)
        nas = await engine.GetSecret(pb.GetSecretRequest(username="nas:SCOPE_01"))
        assert nas.value == "value of nas:SCOPE_01"
        for name in ODD_NAMES:
            assert (await operator.DeleteSecret(pb.DeleteSecretRequest(username=name, reason="r"))).existed, name
        assert not (await operator.ListSecrets(pb.ListSecretsRequest())).secrets
