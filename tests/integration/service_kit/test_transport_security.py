"""TLS: certificates and tokens prove who calls, nothing travels in plaintext, renewed files count at once."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from labferry.events.v1 import event_log_service_pb2 as log_pb
from labferry.events.v1 import event_log_service_pb2_grpc as log_grpc
from labferry.lims.v1 import lims_service_pb2
from labferry.secrets.v1 import secrets_service_pb2 as pb
from labferry.secrets.v1 import secrets_service_pb2_grpc as pb_grpc
from libs.service_kit.certificate_authority import AUTHORITY_CERTIFICATE, CERTIFICATE, KEY, issue, make_authority
from libs.service_kit.channel import open_channel
from libs.service_kit.tls_settings import TlsSettings
from tests.e2e.terminal import Operator
from tests.integration.secrets.running_service import Lab, RunningService, ServiceEndedError, new_lab, refusal, running
from tests.integration.sync_engine.running_engine import Site

DAY = timedelta(days=1)
LONG_AGO = datetime.now(UTC) - timedelta(days=10)


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """A lab with an authority of its own; the secrets service listens on TCP and asks for callers' certificates."""
    async with new_lab() as lab:
        lab.write_passphrase()
        make_authority(lab.folder / "ca", timedelta(days=30), clock=lambda: LONG_AGO)
        issue(lab.folder / "ca", ["secrets.lab", "127.0.0.1"], DAY, lab.folder / "tls")
        lab.settings["listen"]["secrets"] = "127.0.0.1:0"
        lab.settings["tls"] = {
            "certificate": str(lab.folder / "tls" / CERTIFICATE),
            "key": str(lab.folder / "tls" / KEY),
            "ca": str(lab.folder / "ca" / AUTHORITY_CERTIFICATE),
            "client_ca": str(lab.folder / "ca" / AUTHORITY_CERTIFICATE),
            "callers": {
                "monitoring.lab": {"actor": "monitoring", "roles": ["viewer"]},
                "spiffe://lab/gateway": {"actor": "service:lims_gateway", "roles": ["service:lims_gateway"]},
            },
        }
        yield lab


def with_certificate(lab: Lab, *names: str, ca: str = "ca", lifetime: timedelta = DAY) -> TlsSettings:
    """What a caller of these names connects with."""
    folder = lab.folder / names[0].replace("/", "_")
    issue(lab.folder / ca, names, lifetime, folder)
    trusted = lab.folder / "ca" / AUTHORITY_CERTIFICATE
    return TlsSettings(certificate=folder / CERTIFICATE, key=folder / KEY, ca=trusted, client_ca=trusted)


async def stub(service: RunningService, tls: TlsSettings | None, token: str | None = None) -> Any:
    proof = None if token is None else (lambda: token)
    return pb_grpc.SecretsServiceStub(
        await service.resources.enter_async_context(open_channel(service.address, proof, tls))
    )


async def status_code(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_a_certificates_name_tells_who_calls_and_what_they_may(lab: Lab) -> None:
    async with running(lab, "secrets") as service:
        viewer = await stub(service, with_certificate(lab, "monitoring.lab"))
        assert (await viewer.GetStatus(pb.GetStatusRequest())).initialized
        assert await refusal(viewer.Seal(pb.SealRequest())) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
        # The names are looked through in the certificate's order; one that nobody knows proves nothing.
        gateway = await stub(service, with_certificate(lab, "gw-7.lab", "spiffe://lab/gateway"))
        assert await refusal(gateway.GetSecret(pb.GetSecretRequest(username="lims"))) == (
            grpc.StatusCode.NOT_FOUND,
            "SECRET_NOT_FOUND",
        )
        stranger = await stub(service, with_certificate(lab, "stranger.lab"))
        assert await refusal(stranger.GetStatus(pb.GetStatusRequest())) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "IDENTITY_REQUIRED",
        )
        actors = {e.actor for e in await events_of(lab, service)}
        assert "service:lims_gateway" in actors


async def events_of(lab: Lab, service: RunningService) -> list[Any]:
    token = lab.token("operator")
    channel = open_channel(service.address, lambda: token, with_certificate(lab, "anybody.lab"))
    async with channel:
        reader = log_grpc.EventLogServiceStub(channel)
        return [e async for batch in reader.ReadEvents(log_pb.ReadEventsRequest()) for e in batch.events]


async def test_a_token_counts_in_tls_and_goes_before_the_certificate(lab: Lab) -> None:
    async with running(lab, "secrets") as service:
        operator = await stub(service, with_certificate(lab, "monitoring.lab"), lab.token("operator"))
        await operator.Seal(pb.SealRequest())
        wrong = await stub(service, with_certificate(lab, "monitoring.lab"), "not-a-token")
        assert await status_code(wrong.GetStatus(pb.GetStatusRequest())) is grpc.StatusCode.UNAUTHENTICATED


async def test_who_comes_without_a_certificate_of_the_lab_gets_no_connection(lab: Lab) -> None:
    make_authority(lab.folder / "elsewhere", timedelta(days=30))
    async with running(lab, "secrets") as service:
        token = lab.token("operator")
        old = with_certificate(lab, "old.lab")
        issue(lab.folder / "ca", ["old.lab"], DAY, lab.folder / "old.lab", clock=lambda: LONG_AGO)
        no_certificate = TlsSettings(certificate=old.certificate, key=old.key, ca=old.ca)
        for tls in (None, no_certificate, with_certificate(lab, "x.lab", ca="elsewhere"), old):
            caller = await stub(service, tls, token)
            code = await status_code(caller.GetStatus(pb.GetStatusRequest(), timeout=10))
            assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), tls
        assert not [e for e in lab.log_text("secrets").splitlines() if token in e]


async def test_a_service_that_another_authority_vouches_for_gets_no_token(lab: Lab) -> None:
    make_authority(lab.folder / "elsewhere", timedelta(days=30))
    async with running(lab, "secrets") as service:
        mine = with_certificate(lab, "monitoring.lab")
        elsewhere = lab.folder / "elsewhere" / AUTHORITY_CERTIFICATE
        misled = TlsSettings(certificate=mine.certificate, key=mine.key, ca=elsewhere, client_ca=elsewhere)
        caller = await stub(service, misled, lab.token("operator"))
        assert await status_code(caller.GetStatus(pb.GetStatusRequest())) is grpc.StatusCode.UNAVAILABLE


async def test_a_renewed_certificate_is_taken_without_a_restart(lab: Lab) -> None:
    async with running(lab, "secrets") as service:
        token = lab.token("operator")
        # A new authority, as far as callers are concerned: only the renewed certificate is signed by it.
        make_authority(lab.folder / "new", timedelta(days=30))
        mine = with_certificate(lab, "monitoring.lab")
        trusting_new = TlsSettings(
            certificate=mine.certificate, key=mine.key, ca=lab.folder / "new" / AUTHORITY_CERTIFICATE, client_ca=mine.ca
        )
        before = await stub(service, trusting_new, token)
        assert await status_code(before.GetStatus(pb.GetStatusRequest())) is grpc.StatusCode.UNAVAILABLE
        # Half a renewal: the certificate without its key. The old pair serves on.
        kept = (lab.folder / "tls" / KEY).read_bytes()
        issue(lab.folder / "new", ["secrets.lab", "127.0.0.1"], DAY, lab.folder / "tls")
        renewed = (lab.folder / "tls" / KEY).read_bytes()
        (lab.folder / "tls" / KEY).write_bytes(kept)
        still = await stub(service, mine, token)
        assert (await still.GetStatus(pb.GetStatusRequest())).initialized
        assert "does not belong to" in lab.log_text("secrets")
        (lab.folder / "tls" / KEY).write_bytes(renewed)
        after = await stub(service, trusting_new, token)
        assert (await after.GetStatus(pb.GetStatusRequest())).initialized


async def test_a_caller_takes_its_renewed_certificate_up_with_its_next_call(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(lab, "secrets") as service:
        tls = with_certificate(lab, "stranger.lab")
        caller = await stub(service, tls)
        assert await status_code(caller.GetStatus(pb.GetStatusRequest())) is grpc.StatusCode.UNAUTHENTICATED
        # Half a renewal: the certificate without its key. The old pair is used on, and that is said once.
        kept = tls.key.read_bytes()
        issue(lab.folder / "ca", ["monitoring.lab"], DAY, tls.certificate.parent)
        renewed = tls.key.read_bytes()
        tls.key.write_bytes(kept)
        for _ in range(2):
            assert await status_code(caller.GetStatus(pb.GetStatusRequest())) is grpc.StatusCode.UNAUTHENTICATED
        assert [r.getMessage() for r in caplog.records if "earlier certificate" in r.getMessage()] == [
            f"the earlier certificate counts: {tls.key} does not belong to {tls.certificate}"
        ]
        tls.key.write_bytes(renewed)
        assert (await caller.GetStatus(pb.GetStatusRequest())).initialized
        assert await status_code(caller.Seal(pb.SealRequest())) is grpc.StatusCode.PERMISSION_DENIED


async def test_tokens_alone_where_no_callers_certificates_are_asked_for(lab: Lab) -> None:
    del lab.settings["tls"]["client_ca"]
    async with running(lab, "secrets") as service:
        ca = lab.folder / "ca" / AUTHORITY_CERTIFICATE
        nothing = lab.folder / "nothing"
        caller = await stub(service, TlsSettings(certificate=nothing, key=nothing, ca=ca), lab.token("operator"))
        assert (await caller.GetStatus(pb.GetStatusRequest())).initialized
        nobody = await stub(service, TlsSettings(certificate=nothing, key=nothing, ca=ca))
        assert await status_code(nobody.GetStatus(pb.GetStatusRequest())) is grpc.StatusCode.UNAUTHENTICATED


async def test_the_command_line_and_the_gateway_call_in_tls(lab: Lab) -> None:
    async with running(lab, "secrets") as service:
        lab.settings["connect"] = {"secrets": service.address}
        lab.settings["lims"] = {"endpoint": "http://127.0.0.1:9", "email": "lab@example.org"}
        lab.write_config()
        said = await Operator(Site(lab))("secret", "status", "-o", "json")
        assert (said.status, said.json["initialized"]) == (0, True), said
        async with running(lab, "lims_gateway") as gateway:
            health = await (await gateway.lims()).CheckHealth(lims_service_pb2.CheckHealthRequest())
            assert not health.ok
            # The gateway got as far as the answer that nothing is kept: over TLS, as itself.
            assert "lims" in health.reason
            read = [e for e in await events_of(lab, service) if e.actor == "service:lims_gateway"]
            assert read


async def test_a_plaintext_address_that_tells_health_and_nothing_else(lab: Lab, unused_tcp_port: int) -> None:
    lab.settings["health"] = {"listen": {"secrets": f"127.0.0.1:{unused_tcp_port}"}}
    async with running(lab, "secrets"), grpc.aio.insecure_channel(f"127.0.0.1:{unused_tcp_port}") as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        token = lab.token("operator")
        secrets: Any = pb_grpc.SecretsServiceStub(channel)
        call = secrets.GetStatus(pb.GetStatusRequest(), metadata=(("authorization", f"Bearer {token}"),))
        assert await status_code(call) is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda tls: (tls / KEY).unlink(), "can't be read"),
        (lambda tls: (tls / CERTIFICATE).write_text("no PEM"), "is no PEM"),
        (lambda tls: issue(tls.parent / "ca", ["x"], DAY, tls.parent / "other") and swap(tls), "does not belong to"),
    ],
)
async def test_files_that_cannot_be_used_are_said_at_the_start(lab: Lab, spoil: Any, words: str) -> None:
    spoil(lab.folder / "tls")
    with pytest.raises(ServiceEndedError) as ended:
        async with running(lab, "secrets"):
            pass
    assert ended.value.status == 75
    assert words in ended.value.log
    assert "BEGIN" not in ended.value.log


def swap(tls: Path) -> None:
    os.replace(tls.parent / "other" / KEY, tls / KEY)


async def test_no_address_beyond_this_machine_in_plaintext(lab: Lab) -> None:
    del lab.settings["tls"]
    lab.settings["listen"]["secrets"] = "0.0.0.0:0"
    with pytest.raises(ServiceEndedError, match="never travel in plaintext"):
        async with running(lab, "secrets"):
            pass
