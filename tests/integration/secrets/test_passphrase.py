"""The passphrase: changed whole or not at all, and not to be guessed quickly."""

from __future__ import annotations

import asyncio
import random

import grpc
import pytest
from google.rpc import error_details_pb2

from labferry.secrets.v1 import secrets_service_pb2 as pb
from tests.integration.secrets.running_service import PASSPHRASE, Lab, RunningService, detail, refusal, running, start

NEW = "another long one"
WRONG = (grpc.StatusCode.PERMISSION_DENIED, "WRONG_PASSPHRASE")
TOO_MANY = (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_ATTEMPTS")


def change(old: str, new: str) -> pb.ChangePassphraseRequest:
    return pb.ChangePassphraseRequest(old=old, new=new)


async def test_the_new_one_opens_it_and_the_old_one_no_longer(secrets: RunningService) -> None:
    operator, gateway = await secrets.secrets(), await secrets.secrets("lims_gateway")
    await operator.SetSecret(pb.SetSecretRequest(username="lims", value="value"))
    before = secrets.lab.secrets_file.read_bytes()
    assert await refusal(operator.ChangePassphrase(change("wrong", NEW))) == WRONG
    assert secrets.lab.secrets_file.read_bytes() == before
    assert not (await operator.ChangePassphrase(change(PASSPHRASE, NEW))).sealed
    assert (await gateway.GetSecret(pb.GetSecretRequest(username="lims"))).value == "value"
    await operator.SetSecret(pb.SetSecretRequest(username="lims", value="later"))
    await operator.Seal(pb.SealRequest())
    assert await refusal(operator.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))) == WRONG
    await operator.Unseal(pb.UnsealRequest(passphrase=NEW))
    assert (await gateway.GetSecret(pb.GetSecretRequest(username="lims"))).value == "later"
    types = [e.type for e in await secrets.events()]
    assert types.count("secrets.passphrase_changed.v1") == 1
    assert types.index("secrets.unseal_refused.v1") < types.index("secrets.passphrase_changed.v1")
    assert secrets.lab.secrets_file.stat().st_mode & 0o777 == 0o600


async def test_a_sealed_file_stays_sealed(secrets: RunningService) -> None:
    operator = await secrets.secrets()
    await operator.Seal(pb.SealRequest())
    assert (await operator.ChangePassphrase(change(PASSPHRASE, NEW))).sealed
    assert not (await operator.Unseal(pb.UnsealRequest(passphrase=NEW))).sealed


@pytest.mark.parametrize(
    ("request_", "field"), [(change("", NEW), "old"), (change(PASSPHRASE, "short"), "new"), (change("x", ""), "new")]
)
async def test_what_is_no_passphrase(secrets: RunningService, request_: pb.ChangePassphraseRequest, field: str) -> None:
    operator = await secrets.secrets()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await operator.ChangePassphrase(request_)
    bad = detail(refused.value, error_details_pb2.BadRequest)
    assert [violation.field for violation in bad.field_violations] == [field]


async def test_killed_while_it_is_changed_one_of_the_two_opens_it(lab: Lab) -> None:
    chance = random.Random(7)
    known = [PASSPHRASE, NEW]
    async with running(lab, "secrets") as service:
        await (await service.secrets()).SetSecret(pb.SetSecretRequest(username="lims", value="value"))
    for _ in range(4):
        lab.write_passphrase(known[0])
        service = await start(lab, "secrets")
        operator = await service.secrets()
        changing = asyncio.ensure_future(operator.ChangePassphrase(change(*known)))
        await asyncio.wait([changing], timeout=chance.uniform(0.0, 0.5))
        await service.kill()
        await asyncio.wait([changing])
        changing.exception()
        await service.resources.aclose()
        opened = []
        for passphrase in known:
            lab.write_passphrase(passphrase)
            async with running(lab, "secrets") as again:
                if not (await (await again.secrets()).GetStatus(pb.GetStatusRequest())).sealed:
                    opened.append(passphrase)
                    gateway = await again.secrets("lims_gateway")
                    assert (await gateway.GetSecret(pb.GetSecretRequest(username="lims"))).value == "value"
        assert len(opened) == 1
        known.sort(key=lambda one: one != opened[0])


async def test_after_three_wrong_ones_the_next_has_to_wait_even_behind_a_restart(lab: Lab) -> None:
    async with running(lab, "secrets") as service:
        operator = await service.secrets()
        await operator.Seal(pb.SealRequest())
        for _ in range(3):
            assert await refusal(operator.Unseal(pb.UnsealRequest(passphrase="wrong"))) == WRONG
        # What comes too soon is not tried.
        assert await refusal(operator.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))) == TOO_MANY
        assert await refusal(operator.ChangePassphrase(change(PASSPHRASE, NEW))) == TOO_MANY
    # At its start it tries the file's, which is one more wrong one, or comes too soon.
    lab.write_passphrase("wrong too")
    async with running(lab, "secrets") as service:
        operator = await service.secrets()
        async with asyncio.timeout(60):
            while True:
                try:
                    await operator.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))
                    break
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                    pause = detail(error, error_details_pb2.RetryInfo).retry_delay.ToTimedelta()
                    assert 0 < pause.total_seconds() <= 2
                    await asyncio.sleep(pause.total_seconds())
        # The right one clears the slate.
        for _ in range(3):
            assert await refusal(operator.Unseal(pb.UnsealRequest(passphrase="wrong"))) == WRONG
