"""Sealed, unsealed, initialised: what the service does at its start and on call."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from labferry.secrets.v1 import secrets_service_pb2 as pb
from tests.integration.secrets.running_service import (
    PASSPHRASE,
    Lab,
    RunningService,
    ServiceEndedError,
    refusal,
    running,
    start,
)

SERVICE = "labferry.secrets.v1.SecretsService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health_becomes(service: RunningService, wanted: int) -> None:
    stub = health_pb2_grpc.HealthStub(await service.channel(None))
    async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=20):
        if answer.status == wanted:
            return


async def test_first_start_with_a_passphrase_file_makes_the_store(secrets: RunningService) -> None:
    status = await (await secrets.secrets()).GetStatus(pb.GetStatusRequest())
    assert status.backend == pb.BACKEND_ENCRYPTED_FILE
    assert (status.sealed, status.initialized, status.path) == (False, True, str(secrets.lab.secrets_file))
    assert secrets.lab.secrets_file.stat().st_mode & 0o777 == 0o600
    assert secrets.lab.secrets_file.parent.stat().st_mode & 0o777 == 0o700
    assert [e.type for e in await secrets.events()] == ["log.store_created.v1", "secrets.store_initialized.v1"]


async def test_without_a_passphrase_it_starts_sealed_and_its_health_follows(lab: Lab) -> None:
    lab.passphrase_file.unlink()
    async with running(lab, "secrets") as service:
        stub = await service.secrets()
        assert await service.health() == SERVING
        assert await service.health(SERVICE) == NOT_SERVING
        status = await stub.GetStatus(pb.GetStatusRequest())
        assert (status.sealed, status.initialized) == (True, False)
        assert await refusal(stub.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "NOT_INITIALIZED",
        )
        status = await stub.Initialize(pb.InitializeRequest(passphrase=PASSPHRASE))
        assert (status.sealed, status.initialized) == (False, True)
        await health_becomes(service, SERVING)
        assert await refusal(stub.Initialize(pb.InitializeRequest(passphrase=PASSPHRASE))) == (
            grpc.StatusCode.ALREADY_EXISTS,
            "ALREADY_INITIALIZED",
        )
        assert (await stub.Seal(pb.SealRequest())).sealed
        await health_becomes(service, NOT_SERVING)
        assert await service.health() == SERVING


async def test_sealed_wrong_missing_are_different_errors(secrets: RunningService) -> None:
    operator, gateway = await secrets.secrets(), await secrets.secrets("lims_gateway")
    await operator.SetSecret(pb.SetSecretRequest(username="lims", value="value"))
    await operator.Seal(pb.SealRequest())
    await operator.Seal(pb.SealRequest())
    read = pb.GetSecretRequest(username="lims")
    assert await refusal(gateway.GetSecret(read)) == (grpc.StatusCode.FAILED_PRECONDITION, "SEALED")
    set_request = pb.SetSecretRequest(username="lims", value="other")
    assert await refusal(operator.SetSecret(set_request)) == (grpc.StatusCode.FAILED_PRECONDITION, "SEALED")
    listing = operator.ListSecrets(pb.ListSecretsRequest())
    assert await refusal(listing) == (grpc.StatusCode.FAILED_PRECONDITION, "SEALED")
    wrong = operator.Unseal(pb.UnsealRequest(passphrase="not this one"))
    assert await refusal(wrong) == (grpc.StatusCode.PERMISSION_DENIED, "WRONG_PASSPHRASE")
    await operator.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))
    await operator.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))
    assert (await gateway.GetSecret(read)).value == "value"
    wrong = operator.Unseal(pb.UnsealRequest(passphrase="not this one"))
    assert await refusal(wrong) == (grpc.StatusCode.PERMISSION_DENIED, "WRONG_PASSPHRASE")
    assert (await gateway.GetSecret(read)).value == "value"
    assert [e.type for e in await secrets.events() if e.stream == "secrets-store"] == [
        "secrets.store_initialized.v1",
        "secrets.store_sealed.v1",
        "secrets.unseal_refused.v1",
        "secrets.store_unsealed.v1",
        "secrets.unseal_refused.v1",
    ]


async def test_values_survive_sigkill_and_the_passphrase_file_unseals_again(lab: Lab) -> None:
    async with running(lab, "secrets") as service:
        stub = await service.secrets()
        await stub.SetSecret(pb.SetSecretRequest(username="lims", value="kept"))
        await service.kill()
    async with running(lab, "secrets") as service:
        gateway = await service.secrets("lims_gateway")
        assert (await gateway.GetSecret(pb.GetSecretRequest(username="lims"))).value == "kept"
        assert await service.stop() == 0


async def test_a_wrong_passphrase_file_leaves_it_sealed_but_reachable(lab: Lab) -> None:
    async with running(lab, "secrets"):
        pass
    lab.write_passphrase("something else\n")
    async with running(lab, "secrets") as service:
        stub = await service.secrets()
        assert (await stub.GetStatus(pb.GetStatusRequest())).sealed
        assert "does not open" in lab.log_text("secrets")
        assert not (await stub.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))).sealed


async def test_a_lost_file_is_not_papered_over_by_an_empty_one(lab: Lab) -> None:
    async with running(lab, "secrets"):
        pass
    lab.secrets_file.unlink()
    async with running(lab, "secrets") as service:
        status = await (await service.secrets()).GetStatus(pb.GetStatusRequest())
        assert (status.sealed, status.initialized) == (True, False)
        assert "secrets_file_missing" in lab.log_text("secrets")
        assert not lab.secrets_file.exists()


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [(PASSPHRASE, 0o640, "open to others"), ("short", 0o600, "at least 8"), ("", 0o600, "at least 8")],
)
async def test_an_unusable_passphrase_file_stops_the_start(lab: Lab, text: str, mode: int, problem: str) -> None:
    lab.write_passphrase(text, mode)
    with pytest.raises(ServiceEndedError) as caught:
        await start(lab, "secrets")
    assert caught.value.status == 75
    assert problem in caught.value.log
    assert "Traceback" not in caught.value.log
    assert not lab.secrets_file.exists()


async def test_auto_without_a_keyring_takes_the_encrypted_file(lab: Lab) -> None:
    lab.settings["secrets"]["backend"] = "auto"
    async with running(lab, "secrets") as service:
        status = await (await service.secrets()).GetStatus(pb.GetStatusRequest())
        assert status.backend == pb.BACKEND_ENCRYPTED_FILE


async def test_a_forced_keyring_that_is_not_there_is_unavailable(lab: Lab) -> None:
    lab.settings["secrets"]["backend"] = "os_keyring"
    async with running(lab, "secrets") as service:
        stub = await service.secrets()
        assert (await stub.GetStatus(pb.GetStatusRequest())).backend == pb.BACKEND_OS_KEYRING
        setting = stub.SetSecret(pb.SetSecretRequest(username="lims", value="value"))
        assert await refusal(setting) == (grpc.StatusCode.UNAVAILABLE, "KEYRING_UNAVAILABLE")
        assert not [e for e in await service.events() if e.type == "secrets.secret.set.v1"]


async def test_a_second_process_on_the_same_state_is_refused(secrets: RunningService) -> None:
    secrets.lab.settings["listen"]["secrets"] = f"unix:{secrets.lab.folder}/second.sock"
    with pytest.raises(ServiceEndedError) as caught:
        await start(secrets.lab, "secrets")
    assert caught.value.status == 75
    assert "Traceback" not in caught.value.log
