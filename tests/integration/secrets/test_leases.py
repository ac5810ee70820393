"""Leases: one identity, one secret, one piece of work; granted, renewed, revoked, expired, and each of it recorded."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from labferry.events.v1 import event_log_service_pb2 as log_pb
from labferry.secrets.v1 import secrets_service_pb2 as pb
from tests.integration.secrets.running_service import (
    Lab,
    RunningService,
    error_info,
    refusal,
    running,
    wrong_fields,
)

NAS = "nas:SCOPE_01"
NOT_LIVE = (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_NOT_LIVE")
DENIED = (grpc.StatusCode.PERMISSION_DENIED, "SECRET_NOT_ALLOWED")
ACQUIRE = pb.AcquireLeaseRequest(username=NAS, purpose="job 1")


async def keep(service: RunningService, *usernames: str) -> None:
    operator = await service.secrets()
    for username in usernames:
        await operator.SetSecret(pb.SetSecretRequest(username=username, value=f"value of {username}"))


async def how_it_ended(call: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    info = error_info(caught.value)
    assert (caught.value.code(), info.reason) == NOT_LIVE
    return str(info.metadata["end"])


async def types_of(service: RunningService) -> list[str]:
    """What happened to the secret since it was set."""
    prefix = "secrets."
    return [e.type.removeprefix(prefix) for e in await service.events() if e.stream == f"secret-exlab-wizard/{NAS}"][1:]


async def test_a_lease_lets_its_holder_read_its_secret_until_it_is_revoked(secrets: RunningService) -> None:
    operator, engine = await secrets.secrets(), await secrets.secrets("sync_engine")
    gateway = await secrets.secrets("lims_gateway")
    await keep(secrets, NAS, "nas:SCOPE_02", "lims")
    lease = await engine.AcquireLease(ACQUIRE)
    assert (lease.username, lease.purpose, lease.holder) == (NAS, "job 1", "service:sync_engine")
    assert 50 < lease.expire_time.seconds - lease.grant_time.seconds <= 61
    read = pb.GetSecretRequest(username=NAS, lease_id=lease.lease_id)
    assert (await engine.GetSecret(read)).value == f"value of {NAS}"
    renewed = await engine.RenewLease(pb.RenewLeaseRequest(lease_id=lease.lease_id))
    assert renewed.expire_time.ToNanoseconds() > lease.expire_time.ToNanoseconds()
    other = pb.GetSecretRequest(username="nas:SCOPE_02", lease_id=lease.lease_id)
    assert await refusal(engine.GetSecret(other)) == NOT_LIVE
    assert await refusal(gateway.GetSecret(read)) == NOT_LIVE
    assert await refusal(gateway.RenewLease(pb.RenewLeaseRequest(lease_id=lease.lease_id))) == NOT_LIVE
    for_no_reason = pb.RevokeLeaseRequest(lease_id=lease.lease_id)
    assert await wrong_fields(operator.RevokeLease(for_no_reason)) == {"reason"}
    stranger = gateway.RevokeLease(pb.RevokeLeaseRequest(lease_id=lease.lease_id, reason="r"))
    assert await refusal(stranger) == NOT_LIVE
    assert [found.lease_id for found in (await operator.ListLeases(pb.ListLeasesRequest())).leases] == [lease.lease_id]
    await engine.RevokeLease(for_no_reason)
    assert await how_it_ended(engine.GetSecret(read)) == "revoked"
    assert await how_it_ended(engine.RenewLease(pb.RenewLeaseRequest(lease_id=lease.lease_id))) == "revoked"
    assert not (await operator.ListLeases(pb.ListLeasesRequest())).leases
    granted, was_read, stolen, revoked, refused = [
        e for e in await secrets.events() if e.stream == f"secret-exlab-wizard/{NAS}"
    ][1:]
    assert (granted.type, revoked.type) == ("secrets.lease.granted.v1", "secrets.lease.revoked.v1")
    assert was_read.type == "secrets.secret.read.v1"
    assert (stolen.type, stolen.actor) == ("secrets.secret.read_refused.v1", "service:lims_gateway")
    assert (refused.type, refused.actor) == ("secrets.secret.read_refused.v1", "service:sync_engine")


async def test_leases_are_granted_to_those_alone_who_may_read_and_revoked_by_operators(
    secrets: RunningService,
) -> None:
    operator, engine = await secrets.secrets(), await secrets.secrets("sync_engine")
    await keep(secrets, NAS, "lims")
    lims = pb.AcquireLeaseRequest(username="lims", purpose="job 1")
    assert await refusal(engine.AcquireLease(lims)) == DENIED
    assert await refusal(operator.AcquireLease(ACQUIRE)) == DENIED
    nothing = engine.AcquireLease(pb.AcquireLeaseRequest(username="nas:SCOPE_09", purpose="job 1"))
    assert await refusal(nothing) == (grpc.StatusCode.NOT_FOUND, "SECRET_NOT_FOUND")
    for purpose in ("", "a\nb", "x" * 201):
        wrong = engine.AcquireLease(pb.AcquireLeaseRequest(username=NAS, purpose=purpose))
        assert await wrong_fields(wrong) == {"purpose"}
    assert await wrong_fields(engine.RenewLease(pb.RenewLeaseRequest(lease_id="x"))) == {"lease_id"}
    assert await how_it_ended(engine.RenewLease(pb.RenewLeaseRequest(lease_id="0" * 32))) == "unknown"
    lease = await engine.AcquireLease(ACQUIRE)
    await operator.RevokeLease(pb.RevokeLeaseRequest(lease_id=lease.lease_id, reason="the scope was stolen"))
    assert await how_it_ended(engine.RenewLease(pb.RenewLeaseRequest(lease_id=lease.lease_id))) == "revoked"
    by_hand = [e for e in await secrets.events() if e.type == "secrets.lease.revoked.v1"]
    assert [(e.actor, e.reason) for e in by_hand] == [("operator-1", "the scope was stolen")]
    await operator.Seal(pb.SealRequest())
    sealed = (grpc.StatusCode.FAILED_PRECONDITION, "SEALED")
    assert await refusal(engine.AcquireLease(ACQUIRE)) == sealed
    assert (await types_of(secrets))[-1] == "secret.read_refused.v1"


async def test_a_lease_outlives_a_restart_and_expires_when_nobody_renews_it(lab: Lab) -> None:
    async with running(lab, "secrets") as service:
        await keep(service, NAS)
        engine = await service.secrets("sync_engine")
        lease = await engine.AcquireLease(ACQUIRE)
        await service.kill()
    lab.settings["secrets"]["lease_seconds"] = 1
    async with running(lab, "secrets") as service:
        engine, log = await service.secrets("sync_engine"), await service.event_log()
        renew = pb.RenewLeaseRequest(lease_id=lease.lease_id)
        read = pb.GetSecretRequest(username=NAS, lease_id=lease.lease_id)
        following = log.SubscribeEvents(
            log_pb.SubscribeEventsRequest(after_position=0, types=["secrets.lease.expired.v1"])
        )
        async with asyncio.timeout(60):
            async for step in following:
                if step.events.events:
                    (expired,) = step.events.events
                    break
        following.cancel()
        assert expired.actor == "service:secrets"
        assert await how_it_ended(engine.RenewLease(renew)) == "expired"
        assert await how_it_ended(engine.GetSecret(read)) == "expired"
        assert await types_of(service) == ["lease.granted.v1", "lease.expired.v1", "secret.read_refused.v1"]
    async with running(lab, "secrets") as service:
        engine = await service.secrets("sync_engine")
        assert await how_it_ended(engine.RenewLease(renew)) == "unknown"


async def test_who_holds_a_lease_goes_on_after_a_restart(lab: Lab) -> None:
    async with running(lab, "secrets") as service:
        await keep(service, NAS)
        lease = await (await service.secrets("sync_engine")).AcquireLease(ACQUIRE)
    async with running(lab, "secrets") as service:
        engine = await service.secrets("sync_engine")
        await engine.RenewLease(pb.RenewLeaseRequest(lease_id=lease.lease_id))
        read = pb.GetSecretRequest(username=NAS, lease_id=lease.lease_id)
        assert (await engine.GetSecret(read)).value == f"value of {NAS}"
