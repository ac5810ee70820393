"""No log, no value: the service's log can't grow (a file size limit, as a full disk would do)."""

from __future__ import annotations

import resource

import grpc
import pytest

from labferry.secrets.v1 import secrets_service_pb2 as pb
from tests.integration.secrets.running_service import new_lab, running

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


async def test_no_log_no_value_and_no_change() -> None:
    async with new_lab() as lab:
        lab.write_passphrase()
        async with running(lab, "secrets") as service:
            operator, gateway = await service.secrets(), await service.secrets("lims_gateway")
            await operator.SetSecret(pb.SetSecretRequest(username="lims", value="kept"))
            before = lab.secrets_file.read_bytes()
            log_size = max(f.stat().st_size for f in (lab.state_dir / "secrets").glob("events.sqlite3*"))
            resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (log_size, resource.RLIM_INFINITY))
            for call in (
                gateway.GetSecret(pb.GetSecretRequest(username="lims")),
                operator.SetSecret(pb.SetSecretRequest(username="lims", value="new")),
                operator.DeleteSecret(pb.DeleteSecretRequest(username="lims", reason="test")),
                operator.ListSecrets(pb.ListSecretsRequest()),
                operator.Seal(pb.SealRequest()),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
            assert lab.secrets_file.read_bytes() == before
            assert [p.name for p in lab.secrets_file.parent.iterdir()] == ["secrets.enc"]
            resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, UNLIMITED)
            assert (await gateway.GetSecret(pb.GetSecretRequest(username="lims"))).value == "kept"
