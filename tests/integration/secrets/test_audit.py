"""Every access and every refusal is an event, written before the answer; no value is anywhere but in the answer."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import grpc
import pytest

from labferry.events.v1 import event_log_service_pb2 as log_pb
from labferry.events.v1 import secret_events_pb2 as facts
from labferry.secrets.v1 import secrets_service_pb2 as pb
from tests.integration.secrets.running_service import PASSPHRASE, RunningService, refusal

CANARY = "canary-4f1d2c9e-value"


async def test_accesses_and_refusals_are_recorded_with_actor_and_cause(secrets: RunningService) -> None:
    operator, gateway = await secrets.secrets(), await secrets.secrets("lims_gateway")
    await operator.SetSecret(pb.SetSecretRequest(username="lims", value=CANARY))
    await gateway.GetSecret(pb.GetSecretRequest(username="lims"))
    await refusal(operator.GetSecret(pb.GetSecretRequest(username="lims")))
    await operator.ListSecrets(pb.ListSecretsRequest())
    await operator.DeleteSecret(pb.DeleteSecretRequest(username="lims", reason="left the lab"))
    await refusal(gateway.GetSecret(pb.GetSecretRequest(username="lims")))
    await operator.Seal(pb.SealRequest())
    await refusal(gateway.GetSecret(pb.GetSecretRequest(username="lims")))
    events = (await secrets.events())[2:]
    assert [(e.stream, e.type, e.actor, e.reason) for e in events] == [
        ("secret-exlab-wizard/lims", "secrets.secret.set.v1", "operator-1", ""),
        ("secret-exlab-wizard/lims", "secrets.secret.read.v1", "service:lims_gateway", ""),
        ("secret-exlab-wizard/lims", "secrets.secret.read_refused.v1", "operator-1", ""),
        ("secrets-store", "secrets.names_listed.v1", "operator-1", ""),
        ("secret-exlab-wizard/lims", "secrets.secret.deleted.v1", "operator-1", "left the lab"),
        ("secret-exlab-wizard/lims", "secrets.secret.read_refused.v1", "service:lims_gateway", ""),
        ("secrets-store", "secrets.store_sealed.v1", "operator-1", ""),
        ("secret-exlab-wizard/lims", "secrets.secret.read_refused.v1", "service:lims_gateway", ""),
    ]
    refused = [e for e in events if e.type == "secrets.secret.read_refused.v1"]
    causes = []
    for event in refused:
        fact = facts.SecretReadRefused()
        assert event.payload.Unpack(fact)
        causes.append(fact.cause)
    assert causes == ["not_allowed", "not_found", "sealed"]
    assert all(e.correlation_id for e in events)


async def test_when_the_answer_is_here_the_event_is_in_the_log(secrets: RunningService) -> None:
    operator, gateway = await secrets.secrets(), await secrets.secrets("lims_gateway")
    log = await secrets.event_log()
    await operator.SetSecret(pb.SetSecretRequest(username="lims", value=CANARY))
    for number in range(1, 21):
        await gateway.GetSecret(pb.GetSecretRequest(username="lims"))
        info = await log.GetServerInfo(log_pb.GetServerInfoRequest())
        assert info.head_position == 3 + number


async def test_a_caller_that_goes_away_leaves_no_half_done_change(secrets: RunningService) -> None:
    operator, gateway = await secrets.secrets(), await secrets.secrets("lims_gateway")
    await operator.SetSecret(pb.SetSecretRequest(username="lims", value="first"))
    cut_off = 0
    for number in range(30):
        call = operator.SetSecret(pb.SetSecretRequest(username="lims", value=f"value {number}"))
        # A call that is answered in between ends a little later in the other's work each time.
        for _ in range(number % 3):
            await gateway.GetSecret(pb.GetSecretRequest(username="lims"))
        cut_off += call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
    assert cut_off
    await operator.SetSecret(pb.SetSecretRequest(username="lims", value="last"))
    assert (await gateway.GetSecret(pb.GetSecretRequest(username="lims"))).value == "last"
    assert [p.name for p in secrets.lab.secrets_file.parent.iterdir()] == ["secrets.enc"]
    assert not [e for e in await secrets.events() if e.type == "secrets.secret.change_failed.v1"]


async def test_the_canary_is_nowhere_but_in_the_answer(secrets: RunningService) -> None:
    operator, gateway = await secrets.secrets(), await secrets.secrets("lims_gateway")
    await operator.SetSecret(pb.SetSecretRequest(username="lims", value=CANARY))
    assert (await gateway.GetSecret(pb.GetSecretRequest(username="lims"))).value == CANARY
    for wrong in (
        operator.SetSecret(pb.SetSecretRequest(service="other", username="lims", value=CANARY)),
        operator.SetSecret(pb.SetSecretRequest(username="", value=CANARY)),
        operator.Unseal(pb.UnsealRequest(passphrase=CANARY)),
        operator.Initialize(pb.InitializeRequest(passphrase=CANARY)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wrong
        metadata = repr((caught.value.details(), caught.value.trailing_metadata(), caught.value.debug_error_string()))
        assert CANARY not in metadata
    process = Path(f"/proc/{secrets.process.pid}")
    seen = {str(name): (process / name).read_bytes() for name in ("cmdline", "environ")}
    seen["events"] = b"".join([e.SerializeToString() for e in await secrets.events()])
    for file in secrets.lab.folder.rglob("*"):
        if file.is_file() and file != secrets.lab.passphrase_file:
            seen[str(file)] = file.read_bytes()
    assert len(seen) > 6
    for place, data in seen.items():
        assert CANARY.encode() not in data, place
        assert PASSPHRASE.encode() not in data, place
    limits = (process / "limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4] == "0"
