"""Versions of secrets and the dates by which they are to be replaced: facts of the log, told without any value."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from labferry.secrets.v1 import secrets_service_pb2 as pb
from tests.integration.secrets.running_service import (
    PASSPHRASE,
    Lab,
    RunningService,
    error_info,
    refusal,
    running,
    wrong_fields,
)

PATIENCE = 60.0


def at(year: int) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(datetime(year, 1, 31, tzinfo=UTC))
    return moment


async def names_of(service: RunningService) -> dict[str, pb.SecretName]:
    answer = await (await service.secrets()).ListSecrets(pb.ListSecretsRequest())
    return {name.username: name for name in answer.secrets}


async def versions_of(service: RunningService, username: str) -> list[pb.SecretVersion]:
    stub = await service.secrets()
    return list((await stub.ListSecretVersions(pb.ListSecretVersionsRequest(username=username))).versions)


async def test_each_value_is_a_version_with_its_own_date(lab: Lab) -> None:
    async with running(lab, "secrets") as service:
        operator = await service.secrets()
        assert (await operator.SetSecret(pb.SetSecretRequest(username="lims", value="one"))).version == 1
        dated = pb.SetSecretRequest(username="lims", value="two", rotate_by=at(2025))
        assert (await operator.SetSecret(dated)).version == 2
        lims = (await names_of(service))["lims"]
        assert (lims.version, lims.set_by, lims.rotate_by, lims.overdue) == (2, "operator-1", at(2025), True)
        moved = await operator.SetRotateBy(pb.SetRotateByRequest(username="lims", rotate_by=at(2199)))
        assert (moved.secret.rotate_by, moved.secret.overdue, moved.secret.version) == (at(2199), False, 2)
        # What is new has no date but its own.
        assert (await operator.SetSecret(pb.SetSecretRequest(username="lims", value="three"))).version == 3
        assert not (await names_of(service))["lims"].HasField("rotate_by")
        await operator.DeleteSecret(pb.DeleteSecretRequest(username="lims", reason="r"))
        assert await names_of(service) == {}
        assert (await operator.SetSecret(pb.SetSecretRequest(username="lims", value="four"))).version == 4
    async with running(lab, "secrets") as service:
        versions = await versions_of(service, "lims")
        assert [v.version for v in versions] == [4, 3, 2, 1]
        assert [v.rotate_by if v.HasField("rotate_by") else None for v in versions] == [None, None, at(2199), None]
        set_events = [e for e in await service.events() if e.type == "secrets.secret.set.v1"]
        assert [v.set_time for v in versions] == [e.recorded_time for e in reversed(set_events)]
        assert {v.set_by for v in versions} == {"operator-1"}
        assert await versions_of(service, "never") == []


async def test_a_date_needs_a_value_and_a_real_time(secrets: RunningService) -> None:
    operator = await secrets.secrets()
    nothing = operator.SetRotateBy(pb.SetRotateByRequest(username="lims", rotate_by=at(2199)))
    assert await refusal(nothing) == (grpc.StatusCode.NOT_FOUND, "SECRET_NOT_FOUND")
    never = Timestamp(seconds=2**60)
    for call in (
        operator.SetRotateBy(pb.SetRotateByRequest(username="lims", rotate_by=never)),
        operator.SetSecret(pb.SetSecretRequest(username="lims", value="v", rotate_by=never)),
    ):
        assert await wrong_fields(call) == {"rotate_by"}
    assert not [e for e in await secrets.events() if e.stream.endswith("/lims")]
    await operator.SetSecret(pb.SetSecretRequest(username="lims", value="v", rotate_by=at(2199)))
    await operator.SetRotateBy(pb.SetRotateByRequest(username="lims"))
    assert not (await names_of(secrets))["lims"].HasField("rotate_by")
    types = [e.type for e in await secrets.events() if e.stream.endswith("/lims")]
    assert types == ["secrets.secret.set.v1", "secrets.secret.rotate_by_set.v1"]


async def told(stream: AsyncIterator[pb.WatchSecretsResponse]) -> tuple[bool, list[str]]:
    """The next thing that a watcher is told: sealed, and the names with dates."""
    async with asyncio.timeout(PATIENCE):
        step = await anext(stream)
    return step.sealed, [date.username for date in step.rotation_dates]


async def test_who_watches_is_told_of_dates_and_the_seal_as_far_as_it_concerns_him(lab: Lab) -> None:
    async with running(lab, "secrets") as service:
        operator, engine = await service.secrets(), await service.secrets("sync_engine")
        for_engine = aiter(engine.WatchSecrets(pb.WatchSecretsRequest()))
        for_operator = aiter(operator.WatchSecrets(pb.WatchSecretsRequest()))
        assert [await told(for_engine), await told(for_operator)] == [(False, []), (False, [])]
        set_ = pb.SetSecretRequest(username="mine", value="v", rotate_by=at(2199))
        await operator.SetSecret(set_)
        assert await told(for_operator) == (False, ["mine"])
        await operator.SetSecret(pb.SetSecretRequest(username="nas:SCOPE_01", value="v", rotate_by=at(2025)))
        # A free name is nothing that the engine need know of.
        assert await told(for_engine) == (False, ["nas:SCOPE_01"])
        assert await told(for_operator) == (False, ["mine", "nas:SCOPE_01"])
        await operator.Seal(pb.SealRequest())
        assert await told(for_engine) == (True, ["nas:SCOPE_01"])
        await operator.Unseal(pb.UnsealRequest(passphrase=PASSPHRASE))
        assert await told(for_engine) == (False, ["nas:SCOPE_01"])
        await operator.DeleteSecret(pb.DeleteSecretRequest(username="nas:SCOPE_01", reason="r"))
        assert await told(for_engine) == (False, [])
        gateway = (await service.secrets("lims_gateway")).WatchSecrets(pb.WatchSecretsRequest())
        with_no_right = await refusal(anext(aiter(gateway)))
        assert with_no_right == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
        assert await service.stop() == 0
        try:
            await told(for_engine)
        except grpc.aio.AioRpcError as ended:
            assert (ended.code(), error_info(ended).metadata["dependency"]) == (
                grpc.StatusCode.UNAVAILABLE,
                "secrets",
            )
        else:
            raise AssertionError("the stream outlived the service")
