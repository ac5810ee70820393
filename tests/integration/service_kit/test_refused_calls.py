"""Refused calls stand in the log and are counted; strangers who go on are turned away; known callers never are."""

from __future__ import annotations

from typing import Any

import grpc

from labferry.events.v1 import event_pb2
from labferry.events.v1.log_events_pb2 import CallsRefused
from labferry.secrets.v1 import secrets_service_pb2 as pb
from labferry.secrets.v1 import secrets_service_pb2_grpc as pb_grpc
from libs.service_kit.refusals import MOST_A_MINUTE
from tests.integration.secrets.conftest import lab, secrets
from tests.integration.secrets.running_service import RunningService, refusal, running

__all__ = ["lab", "secrets"]

STATUS = "/labferry.secrets.v1.SecretsService/GetStatus"


def refused(events: list[event_pb2.Event]) -> list[CallsRefused]:
    return [CallsRefused.FromString(e.payload.value) for e in events if e.type == "log.calls_refused.v1"]


async def test_strangers_are_recorded_counted_and_turned_away(secrets: RunningService) -> None:
    stranger: Any = pb_grpc.SecretsServiceStub(await secrets.channel(None))
    wrong = (("authorization", "Bearer not-a-token"),)
    calls = MOST_A_MINUTE + 20
    reasons = [await refusal(stranger.GetStatus(pb.GetStatusRequest(), metadata=wrong)) for _ in range(calls)]
    assert reasons[:MOST_A_MINUTE] == [(grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_REQUIRED")] * MOST_A_MINUTE
    assert reasons[MOST_A_MINUTE:] == [(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_REFUSALS")] * 20
    operator = await secrets.secrets()
    assert (await operator.GetStatus(pb.GetStatusRequest())).initialized, "who is known is never turned away"
    (first, *_) = refused(await secrets.events())
    assert (first.method, first.actor, first.host, first.reason) == (STATUS, "", "unix", "IDENTITY_REQUIRED")
    assert await secrets.stop() == 0
    async with running(secrets.lab, "secrets") as again:
        told = refused(await again.events())
    # Nothing that waited to be counted is lost at an orderly end, and the log doesn't grow with each call.
    assert sum(fact.count for fact in told) == calls
    assert len(told) <= 6
    assert "not-a-token" not in secrets.lab.log_text("secrets")


async def test_a_known_caller_without_the_role(secrets: RunningService) -> None:
    gateway = await secrets.secrets("lims_gateway")
    assert (await refusal(gateway.Seal(pb.SealRequest())))[1] == "ROLE_REQUIRED"
    assert await secrets.stop() == 0
    async with running(secrets.lab, "secrets") as again:
        events = await again.events()
    (fact,) = refused(events)
    assert (fact.actor, fact.reason, fact.count) == ("service:lims_gateway", "ROLE_REQUIRED", 1)
    assert fact.method.endswith("/Seal")


async def test_for_whom_a_caller_says_that_it_acts_is_kept_apart(secrets: RunningService) -> None:
    operator = await secrets.secrets()
    request = pb.SetSecretRequest(username="nas:CONFOCAL_01", value="v")
    await operator.SetSecret(request, metadata=(("x-on-behalf-of", "asmith via portal"),))
    await operator.SetSecret(request)
    first, second = [e for e in await secrets.events() if e.type == "secrets.secret.set.v1"]
    assert (first.actor, first.on_behalf_of) == ("operator-1", "asmith via portal")
    assert (second.actor, second.on_behalf_of) == ("operator-1", "")
    long = operator.SetSecret(request, metadata=(("x-on-behalf-of", "x" * 129),))
    assert await refusal(long) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    # It gives nobody a right.
    gateway = await secrets.secrets("lims_gateway")
    claimed = gateway.Seal(pb.SealRequest(), metadata=(("x-on-behalf-of", "operator-1"),))
    assert (await refusal(claimed))[1] == "ROLE_REQUIRED"
