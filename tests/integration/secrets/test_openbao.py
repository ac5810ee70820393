"""OpenBao as the place of the secrets: logins, its own versions, two writers, and everything that it can refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest
from google.rpc import error_details_pb2

from labferry.secrets.v1 import secrets_service_pb2 as pb
from libs.service_kit.certificate_authority import AUTHORITY_CERTIFICATE, issue, make_authority
from tests.integration.secrets.running_openbao import PREFIX, OpenBao, running_openbao
from tests.integration.secrets.running_service import (
    Lab,
    RunningService,
    detail,
    error_info,
    refusal,
    running,
)

READ = pb.GetSecretRequest(username="lims")
SET = pb.SetSecretRequest(username="lims", value="canary-value")
UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "OPENBAO_UNAVAILABLE")
REFUSED = (grpc.StatusCode.FAILED_PRECONDITION, "OPENBAO_REFUSED")


@pytest.fixture
async def openbao(lab: Lab) -> AsyncIterator[OpenBao]:
    async with running_openbao(lab.folder) as server:
        server.configure(lab)
        yield server


async def problem_of(service: RunningService) -> str:
    status = await (await service.secrets()).GetStatus(pb.GetStatusRequest())
    assert status.backend == pb.BACKEND_OPENBAO
    return str(status.problem)


async def test_its_versions_are_known_and_nobodys_value_is_overwritten_unseen(lab: Lab, openbao: OpenBao) -> None:
    async with running(lab, "secrets") as service:
        operator, gateway = await service.secrets(), await service.secrets("lims_gateway")
        await operator.SetSecret(SET)
        assert await openbao.values() == {f"{PREFIX}/lims": "canary-value"}
        await openbao.told(before_write='{"value": "another program\'s"}')
        changed = (grpc.StatusCode.ABORTED, "SECRET_CHANGED_MEANWHILE")
        assert await refusal(operator.SetSecret(SET)) == changed
        assert (await gateway.GetSecret(READ)).value == "another program's"
        assert (await operator.SetSecret(SET)).version == 2
        versions = await operator.ListSecretVersions(pb.ListSecretVersionsRequest(username="lims"))
        assert [(v.version, v.store_version) for v in versions.versions] == [(2, 3), (1, 1)]
        types = [e.type for e in await service.events() if e.stream.endswith("/lims")]
        assert types.count("secrets.secret.change_failed.v1") == 1
        # Deleted over there, and set again: that the engine still counts matters to nobody here.
        held = await openbao.told()
        await openbao.told(versions={**held["versions"], f"{PREFIX}/lims": ["{}", "{}", "{}", None]})
        assert await refusal(gateway.GetSecret(READ)) == (grpc.StatusCode.NOT_FOUND, "SECRET_NOT_FOUND")
        assert not (await operator.SetSecret(SET)).replaced
        await openbao.told(versions={f"{PREFIX}/lims": ['{"other": 1}']})
        assert await refusal(gateway.GetSecret(READ)) == (grpc.StatusCode.DATA_LOSS, "STORE_DAMAGED")
    assert "canary-value" not in lab.log_text("secrets")


async def test_while_it_is_sealed_or_gone_callers_are_told_and_afterwards_served(lab: Lab, openbao: OpenBao) -> None:
    await openbao.told(sealed=True)
    async with running(lab, "secrets") as service:
        operator, gateway = await service.secrets(), await service.secrets("lims_gateway")
        assert "sealed" in lab.log_text("secrets")
        assert "sealed" in await problem_of(service)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await operator.SetSecret(SET)
        assert (caught.value.code(), error_info(caught.value).reason) == UNAVAILABLE
        assert error_info(caught.value).metadata["dependency"] == f"http://127.0.0.1:{openbao.port}"
        assert detail(caught.value, error_details_pb2.RetryInfo).retry_delay.seconds > 0
        await openbao.told(sealed=False)
        await operator.SetSecret(SET)
        assert await problem_of(service) == ""
        await openbao.kill()
        assert await refusal(gateway.GetSecret(READ)) == UNAVAILABLE
        assert await refusal(operator.DeleteSecret(pb.DeleteSecretRequest(username="lims", reason="r"))) == UNAVAILABLE
        await openbao.start()
        assert (await gateway.GetSecret(READ)).value == "canary-value"
        refused = [e for e in await service.events() if e.type == "secrets.secret.read_refused.v1"]
        assert len(refused) == 1


async def test_its_certificate_is_checked_before_it_gets_a_token(lab: Lab) -> None:
    for authority in ("ours", "another"):
        make_authority(lab.folder / authority, timedelta(days=1))
    issue(lab.folder / "ours", ["127.0.0.1"], timedelta(days=1), lab.folder / "right")
    issue(lab.folder / "ours", ["127.0.0.9"], timedelta(days=1), lab.folder / "misnamed")
    cases = [("right", "ours", True), ("misnamed", "ours", False), ("right", "another", False), ("right", None, False)]
    for certificate, trusted, accepted in cases:
        async with running_openbao(lab.folder, tls=lab.folder / certificate) as server:
            server.configure(lab)
            if trusted is not None:
                lab.settings["secrets"]["openbao"]["ca_file"] = str(lab.folder / trusted / AUTHORITY_CERTIFICATE)
            async with running(lab, "secrets") as service:
                operator, gateway = await service.secrets(), await service.secrets("lims_gateway")
                if accepted:
                    await operator.SetSecret(SET)
                    assert (await gateway.GetSecret(READ)).value == "canary-value"
                else:
                    assert await refusal(operator.SetSecret(SET)) == UNAVAILABLE
                    assert "certificate" in (await problem_of(service)).lower()
            assert len(await server.values()) == 1, "only the first was let in"
    assert "first-token" not in lab.log_text("secrets")


async def test_logins_that_end_are_made_anew_and_refusals_are_told(lab: Lab, openbao: OpenBao) -> None:
    secret_id = lab.folder / "secret_id"
    secret_id.write_text("s-1\n")
    openbao.configure(lab, method="approle", role_id="labferry", secret_id_file=str(secret_id))
    async with running(lab, "secrets") as service:
        operator, gateway = await service.secrets(), await service.secrets("lims_gateway")
        await operator.SetSecret(SET)
        assert (await openbao.told(tokens=[]))["logins"] == ["/v1/auth/approle/login"]
        assert (await gateway.GetSecret(READ)).value == "canary-value"
        assert len((await openbao.told(tokens=[]))["logins"]) == 2
        secret_id.write_text("wrong\n")
        assert await refusal(gateway.GetSecret(READ)) == REFUSED
        assert await refusal(operator.SetSecret(SET)) == REFUSED
        secret_id.unlink()
        assert "secret_id" in await problem_of(service)
    jwt = lab.folder / "jwt"
    jwt.write_text("j-1")
    openbao.configure(lab, method="kubernetes", role="labferry", jwt_file=str(jwt))
    await openbao.told(ttl=2)
    async with running(lab, "secrets") as service:
        gateway = await service.secrets("lims_gateway")
        assert (await gateway.GetSecret(READ)).value == "canary-value"
        assert (await openbao.told())["logins"][-1] == "/v1/auth/kubernetes/login"
        async with asyncio.timeout(60):
            while (await openbao.told())["renewals"] < 1:
                await asyncio.sleep(0.1)
    openbao.configure(lab)
    await openbao.told(tokens=[])
    async with running(lab, "secrets") as service:
        assert "refuses this service" in await problem_of(service)
        assert await refusal((await service.secrets()).SetSecret(SET)) == REFUSED
        lab.folder.joinpath("openbao.token").write_text("replaced")
        await openbao.told(tokens=["replaced"])
        assert await problem_of(service) == ""
    lab.settings["secrets"]["openbao"]["mount"] = "elsewhere"
    async with running(lab, "secrets") as service:
        nowhere = (grpc.StatusCode.FAILED_PRECONDITION, "NO_SUCH_MOUNT")
        assert await refusal((await service.secrets("lims_gateway")).GetSecret(READ)) == nowhere
        assert "no KV engine at elsewhere" in await problem_of(service)
