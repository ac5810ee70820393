"""SIGKILL at random instants of a stream of writes: the file is whole, and holds everything that was acknowledged."""

from __future__ import annotations

import asyncio
import random

import grpc
import pytest

from labferry.events.v1 import event_log_service_pb2 as log_pb
from labferry.secrets.v1 import secrets_service_pb2 as pb
from tests.integration.secrets.running_service import new_lab, running


async def test_nothing_acknowledged_is_lost_and_the_file_is_never_half_written() -> None:
    seed = random.randrange(2**32)
    instants = random.Random(seed)
    acknowledged: dict[str, str] = {}
    attempted: dict[str, str] = {}
    async with new_lab() as lab:
        lab.write_passphrase()
        for round_ in range(6):
            async with running(lab, "secrets") as service:
                operator, gateway = await service.secrets(), await service.secrets("sync_engine")
                assert not (await operator.GetStatus(pb.GetStatusRequest())).sealed, seed
                for name, value in acknowledged.items():
                    found = (await gateway.GetSecret(pb.GetSecretRequest(username=name))).value
                    assert found in (value, attempted[name]), (seed, name)
                    acknowledged[name] = found
                assert (await (await service.event_log()).VerifyLog(log_pb.VerifyLogRequest())).intact

                async def write(stub: object = operator, round_: int = round_) -> None:
                    for number in range(10_000):
                        name, value = f"nas:N{number % 7}", f"{round_}-{number}"
                        attempted[name] = value
                        await stub.SetSecret(pb.SetSecretRequest(username=name, value=value))  # type: ignore[attr-defined]
                        acknowledged[name] = value

                writing = asyncio.ensure_future(write())
                done, _ = await asyncio.wait({writing}, timeout=instants.uniform(0.05, 0.8))
                assert not done, seed
                await service.kill()
                with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
                    await writing
        assert acknowledged
