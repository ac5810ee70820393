"""Setting, reading, listing and deleting values, and who may do which."""

from __future__ import annotations

import grpc

from labferry.secrets.v1 import secrets_service_pb2 as pb
from tests.integration.secrets.running_service import RunningService, refusal, wrong_fields

DENIED = grpc.StatusCode.PERMISSION_DENIED


async def test_a_value_is_set_read_replaced_listed_and_deleted(secrets: RunningService) -> None:
    operator, gateway = await secrets.secrets(), await secrets.secrets("lims_gateway")
    value = 'tricky "\\ \n\0 ü 🔑' + "x" * 60_000
    assert not (await operator.SetSecret(pb.SetSecretRequest(username="lims", value="first"))).replaced
    assert (await operator.SetSecret(pb.SetSecretRequest(username="lims", value=value))).replaced
    assert (await gateway.GetSecret(pb.GetSecretRequest(username="lims"))).value == value
    await operator.SetSecret(pb.SetSecretRequest(service="exlab-wizard", username="nas:SCOPE_01", value="n"))
    names = (await operator.ListSecrets(pb.ListSecretsRequest())).secrets
    assert [(n.service, n.username) for n in names] == [("exlab-wizard", "lims"), ("exlab-wizard", "nas:SCOPE_01")]
    set_event = [e for e in await secrets.events() if e.type == "secrets.secret.set.v1"][1]
    assert names[0].set_time == set_event.recorded_time
    delete = pb.DeleteSecretRequest(username="lims", reason="account closed")
    assert (await operator.DeleteSecret(delete)).existed
    assert not (await operator.DeleteSecret(delete)).existed
    read = gateway.GetSecret(pb.GetSecretRequest(username="lims"))
    assert await refusal(read) == (grpc.StatusCode.NOT_FOUND, "SECRET_NOT_FOUND")
    assert [n.username for n in (await operator.ListSecrets(pb.ListSecretsRequest())).secrets] == ["nas:SCOPE_01"]


READABLE = {"operator": set(), "lims_gateway": {"lims"}, "sync_engine": {"nas:SCOPE_01"}}


async def test_each_identity_reads_its_own_names_alone(secrets: RunningService) -> None:
    operator = await secrets.secrets()
    names = ("lims", "nas:SCOPE_01", "free name")
    for name in names:
        await operator.SetSecret(pb.SetSecretRequest(username=name, value="value"))
    for who, readable in READABLE.items():
        reader = await secrets.secrets(who)
        for name in names:
            call = reader.GetSecret(pb.GetSecretRequest(username=name))
            if name in readable:
                assert (await call).value == "value"
            else:
                assert await refusal(call) == (DENIED, "SECRET_NOT_ALLOWED")
        elsewhere = reader.GetSecret(pb.GetSecretRequest(service="browser", username="lims"))
        assert await refusal(elsewhere) == (DENIED, "SECRET_NOT_ALLOWED")


async def test_services_change_nothing(secrets: RunningService) -> None:
    for who in ("lims_gateway", "sync_engine"):
        stub = await secrets.secrets(who)
        await stub.GetStatus(pb.GetStatusRequest())
        for call in (
            stub.SetSecret(pb.SetSecretRequest(username="lims", value="v")),
            stub.DeleteSecret(pb.DeleteSecretRequest(username="lims", reason="r")),
            stub.ListSecrets(pb.ListSecretsRequest()),
            stub.Seal(pb.SealRequest()),
            stub.Unseal(pb.UnsealRequest(passphrase="p")),
            stub.Initialize(pb.InitializeRequest(passphrase="long enough")),
        ):
            assert await refusal(call) == (DENIED, "ROLE_REQUIRED")


async def test_wrong_requests_name_the_wrong_fields(secrets: RunningService) -> None:
    operator = await secrets.secrets()
    for username in ("", "a" * 256, "line\nbreak", "_exlab_probe"):
        call = operator.SetSecret(pb.SetSecretRequest(username=username, value="v"))
        assert await wrong_fields(call) == {"username"}
        assert await wrong_fields(operator.GetSecret(pb.GetSecretRequest(username=username))) == {"username"}
    both = operator.SetSecret(pb.SetSecretRequest(service="a/b", username="u", value=""))
    assert await wrong_fields(both) == {"service", "value"}
    for value in ("", "x" * 65_537, "ü" * 40_000):
        assert await wrong_fields(operator.SetSecret(pb.SetSecretRequest(username="u", value=value))) == {"value"}
    for reason in ("", "  "):
        call = operator.DeleteSecret(pb.DeleteSecretRequest(username="u", reason=reason))
        assert await wrong_fields(call) == {"reason"}
    other = operator.SetSecret(pb.SetSecretRequest(service="another", username="u", value="v"))
    assert await wrong_fields(other) == {"service"}
    assert await wrong_fields(operator.ListSecrets(pb.ListSecretsRequest(service="a\nb"))) == {"service"}
    assert await wrong_fields(operator.Initialize(pb.InitializeRequest(passphrase="short"))) == {"passphrase"}
    assert await wrong_fields(operator.Unseal(pb.UnsealRequest())) == {"passphrase"}
