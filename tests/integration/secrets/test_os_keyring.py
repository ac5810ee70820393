"""The OS keyring: a real Secret Service, looked at by a second client, locked, missing, hanging, dying and back."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import grpc
import pytest

from labferry.secrets.v1 import secrets_service_pb2 as pb
from tests.integration.secrets.running_service import PASSPHRASE, Lab, RunningService, refusal, running
from tests.integration.secrets.secret_service import SecretService, session
from tests.integration.secrets.test_encrypted_file import by_hand, put, read_by_hand

READ_LIMS = pb.GetSecretRequest(username="lims")
UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "KEYRING_UNAVAILABLE")


@pytest.fixture
async def desktop(lab: Lab) -> AsyncIterator[SecretService]:
    """A session without a keyring daemon; the service is to choose for itself."""
    lab.settings["secrets"]["backend"] = "auto"
    async with session(lab.folder / "home") as desktop:
        yield desktop


@pytest.fixture
async def keyring(desktop: SecretService) -> SecretService:
    """The daemon runs and is unlocked."""
    await desktop.start_daemon()
    return desktop


async def test_a_keyring_that_works_is_chosen_and_values_lie_in_it(lab: Lab, keyring: SecretService) -> None:
    async with running(lab, "secrets", environment=keyring.environment) as service:
        operator, gateway = await service.secrets(), await service.secrets("lims_gateway")
        status = await operator.GetStatus(pb.GetStatusRequest())
        assert (status.backend, status.sealed, status.initialized) == (pb.BACKEND_OS_KEYRING, False, True)
        assert keyring.values() == {}, "the probe's sentinel was left behind"
        assert not (await operator.SetSecret(pb.SetSecretRequest(username="lims", value="first"))).replaced
        assert (await operator.SetSecret(pb.SetSecretRequest(username="lims", value="ü 🔑"))).replaced
        await operator.SetSecret(pb.SetSecretRequest(username="nas:SCOPE_01", value="n"))
        assert keyring.values() == {"lims": "ü 🔑", "nas:SCOPE_01": "n"}
        assert (await gateway.GetSecret(READ_LIMS)).value == "ü 🔑"
        keyring.put("lims", "from the wizard")
        assert (await gateway.GetSecret(READ_LIMS)).value == "from the wizard"
        listed = (await operator.ListSecrets(pb.ListSecretsRequest())).secrets
        assert [name.username for name in listed] == ["lims", "nas:SCOPE_01"]
        await operator.SetSecret(pb.SetSecretRequest(service="another", username="lims", value="other"))
        delete = pb.DeleteSecretRequest(username="lims", reason="account closed")
        assert (await operator.DeleteSecret(delete)).existed
        assert not (await operator.DeleteSecret(delete)).existed
        assert keyring.values() == {"nas:SCOPE_01": "n"}
        assert await refusal(gateway.GetSecret(READ_LIMS)) == (grpc.StatusCode.NOT_FOUND, "SECRET_NOT_FOUND")
    assert not lab.secrets_file.exists()


async def test_without_a_daemon_the_encrypted_file_is_chosen(lab: Lab, desktop: SecretService) -> None:
    async with running(lab, "secrets", environment=desktop.environment) as service:
        operator = await service.secrets()
        assert (await operator.GetStatus(pb.GetStatusRequest())).backend == pb.BACKEND_ENCRYPTED_FILE
        await operator.SetSecret(pb.SetSecretRequest(username="lims", value="filed"))
    assert read_by_hand(lab.secrets_file) == {"lims": "filed"}


async def test_the_keyring_is_asked_before_the_file_and_deleting_removes_from_both(
    lab: Lab, keyring: SecretService
) -> None:
    put(lab, by_hand({"lims": "in the file", "nas:SCOPE_01": "in the file alone"}))
    keyring.put("lims", "in the keyring")
    async with running(lab, "secrets", environment=keyring.environment) as service:
        operator, gateway = await service.secrets(), await service.secrets("lims_gateway")
        engine = await service.secrets("sync_engine")
        assert (await gateway.GetSecret(READ_LIMS)).value == "in the keyring"
        nas = pb.GetSecretRequest(username="nas:SCOPE_01")
        assert (await engine.GetSecret(nas)).value == "in the file alone"
        await operator.SetSecret(pb.SetSecretRequest(username="nas:SCOPE_01", value="newer"))
        assert (await engine.GetSecret(nas)).value == "newer"
        assert read_by_hand(lab.secrets_file)["nas:SCOPE_01"] == "in the file alone"
        await operator.Seal(pb.SealRequest())
        assert (await gateway.GetSecret(READ_LIMS)).value == "in the keyring"
        sealed = (grpc.StatusCode.FAILED_PRECONDITION, "SEALED")
        assert await refusal(gateway.GetSecret(pb.GetSecretRequest(username="lims:other"))) == sealed
        delete = pb.DeleteSecretRequest(username="lims", reason="account closed")
        # It may be in the file too, and nobody can tell.
        assert await refusal(operator.DeleteSecret(delete)) == sealed
        await operator.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))
        assert (await operator.DeleteSecret(delete)).existed
        assert await refusal(gateway.GetSecret(READ_LIMS)) == (grpc.StatusCode.NOT_FOUND, "SECRET_NOT_FOUND")
    assert read_by_hand(lab.secrets_file) == {"nas:SCOPE_01": "in the file alone"}
    assert keyring.values() == {"nas:SCOPE_01": "newer"}


async def refused_everything(service: RunningService) -> str:
    """Every call that needs the keyring is refused as unavailable. Returns what the caller is told."""
    operator, gateway = await service.secrets(), await service.secrets("lims_gateway")
    assert await refusal(operator.SetSecret(pb.SetSecretRequest(username="lims", value="canary"))) == UNAVAILABLE
    assert await refusal(operator.DeleteSecret(pb.DeleteSecretRequest(username="lims", reason="r"))) == UNAVAILABLE
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.GetSecret(READ_LIMS)
    return caught.value.details() or ""


async def test_a_locked_keyring_is_told_at_once(lab: Lab, keyring: SecretService) -> None:
    async with running(lab, "secrets", environment=keyring.environment) as service:
        operator = await service.secrets()
        await operator.SetSecret(pb.SetSecretRequest(username="lims", value="kept"))
        keyring.lock()
        assert "locked" in await refused_everything(service)
        refused = [e for e in await service.events() if e.type == "secrets.secret.read_refused.v1"]
        assert len(refused) == 1
        await keyring.kill_daemon()
        await keyring.start_daemon()
        assert (await (await service.secrets("lims_gateway")).GetSecret(READ_LIMS)).value == "kept"


async def test_a_keyring_that_is_locked_at_the_start_is_told_and_used_as_soon_as_it_is_unlocked(
    lab: Lab, keyring: SecretService
) -> None:
    keyring.put("lims", "in the keyring")
    keyring.lock()
    async with running(lab, "secrets", environment=keyring.environment) as service:
        operator, gateway = await service.secrets(), await service.secrets("lims_gateway")
        status = await operator.GetStatus(pb.GetStatusRequest())
        assert (status.backend, status.sealed) == (pb.BACKEND_OS_KEYRING, False)
        assert "locked" in status.problem
        assert "keyring_not_usable" in lab.log_text("secrets")
        # Nothing that the keyring would shadow later is put into the file.
        assert "locked" in await refused_everything(service)
        assert not lab.secrets_file.exists()
        await keyring.kill_daemon()
        await keyring.start_daemon()
        assert (await operator.GetStatus(pb.GetStatusRequest())).problem == ""
        assert (await gateway.GetSecret(READ_LIMS)).value == "in the keyring"
        await operator.SetSecret(pb.SetSecretRequest(username="lims", value="newer"))
    assert keyring.values() == {"lims": "newer"}


async def test_what_was_put_into_the_file_while_there_was_no_keyring_is_not_shadowed_by_it(
    lab: Lab, desktop: SecretService
) -> None:
    async with running(lab, "secrets", environment=desktop.environment) as service:
        await (await service.secrets()).SetSecret(pb.SetSecretRequest(username="lims", value="newer, in the file"))
    await desktop.start_daemon()
    desktop.put("lims", "older, in the keyring")
    async with running(lab, "secrets", environment=desktop.environment) as service:
        operator, gateway = await service.secrets(), await service.secrets("lims_gateway")
        assert (await operator.GetStatus(pb.GetStatusRequest())).backend == pb.BACKEND_OS_KEYRING
        assert (await gateway.GetSecret(READ_LIMS)).value == "newer, in the file"
        await operator.SetSecret(pb.SetSecretRequest(username="lims", value="newest"))
        assert (await gateway.GetSecret(READ_LIMS)).value == "newest"
    assert desktop.values() == {"lims": "newest"}


async def test_a_forced_keyring_that_comes_after_the_service_is_used(lab: Lab, desktop: SecretService) -> None:
    lab.settings["secrets"]["backend"] = "os_keyring"
    async with running(lab, "secrets", environment=desktop.environment) as service:
        operator = await service.secrets()
        assert (await operator.GetStatus(pb.GetStatusRequest())).backend == pb.BACKEND_OS_KEYRING
        assert "there is none" in await refused_everything(service)
        await desktop.start_daemon()
        await operator.SetSecret(pb.SetSecretRequest(username="lims", value="late"))
    assert desktop.values() == {"lims": "late"}
    assert not lab.secrets_file.exists()


async def test_a_daemon_that_dies_and_comes_back(lab: Lab, keyring: SecretService) -> None:
    async with running(lab, "secrets", environment=keyring.environment) as service:
        operator, gateway = await service.secrets(), await service.secrets("lims_gateway")
        for value in ("first", "second"):
            await operator.SetSecret(pb.SetSecretRequest(username="lims", value=value))
            await keyring.kill_daemon()
            await refused_everything(service)
            await keyring.start_daemon()
            assert (await gateway.GetSecret(READ_LIMS)).value == value


async def test_a_daemon_that_hangs_is_given_up_on_and_asked_again(lab: Lab, keyring: SecretService) -> None:
    async with running(lab, "secrets", environment=keyring.environment) as service:
        operator, gateway = await service.secrets(), await service.secrets("lims_gateway")
        await operator.SetSecret(pb.SetSecretRequest(username="lims", value="kept"))
        assert keyring.daemon is not None
        keyring.daemon.send_signal(signal.SIGSTOP)
        # Ten seconds for the first, none for whoever comes while it still hangs.
        assert "no answer" in await refused_first(gateway)
        assert "has not come back" in await refused_everything(service)
        assert (await operator.GetStatus(pb.GetStatusRequest())).backend == pb.BACKEND_OS_KEYRING
        keyring.daemon.send_signal(signal.SIGCONT)
        async with asyncio.timeout(60):
            while True:
                try:
                    answer = await gateway.GetSecret(READ_LIMS)
                    break
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.UNAVAILABLE
                    await asyncio.sleep(0.02)
        assert answer.value == "kept"


async def refused_first(gateway: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.GetSecret(READ_LIMS)  # type: ignore[attr-defined]
    return caught.value.details() or ""
