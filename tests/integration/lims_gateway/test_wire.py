"""What leaves the gateway towards the LIMS, and what stays inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from labferry.lims.v1 import lims_service_pb2 as pb
from labferry.lims.v1 import lims_service_pb2_grpc as pb_grpc
from tests.integration.lims_gateway.running_lims import PASSWORD, Site
from tests.integration.secrets.running_service import PASSPHRASE, ServiceEndedError, new_lab, refusal, start

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_only_get_and_the_login_post_reach_the_lims(site: Site) -> None:
    stub = await site.gateway.lims()
    for mode in ("ok", "expire_sessions", "refuse_sessions", "ok", "error_500", "html", "redirect", "ok"):
        await site.lims.behave(mode)
        for call in (
            stub.ListProjects(pb.ListProjectsRequest(refresh=True)),
            stub.GetProject(pb.GetProjectRequest(id="not there/../login")),
            stub.CheckHealth(pb.CheckHealthRequest()),
            stub.GetCurrentUser(pb.GetCurrentUserRequest()),
            stub.RefreshProjects(pb.RefreshProjectsRequest()),
            stub.WatchProjects(pb.WatchProjectsRequest(every_endpoint=True)).read(),
        ):
            try:
                await call
            except grpc.aio.AioRpcError as error:
                assert error.code() is not grpc.StatusCode.INTERNAL, error
    requests = await site.lims.requests()
    assert len(requests) > 10
    assert {r for r in requests if r[0] != "GET"} == {("POST", "/api/v1/login")}
    assert not [path for _, path in requests if not path.startswith("/api/v1/")]


async def test_the_password_stays_out_of_everything(new_site: Site) -> None:
    site = new_site
    stub = await site.gateway.lims()
    await stub.ListProjects(pb.ListProjectsRequest())
    for mode in ("refuse_logins", "drop", "truncate", "html"):
        await site.lims.behave(mode)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (await site.gateway.lims()).GetProject(pb.GetProjectRequest(id=f"absent in {mode}"))
        assert PASSWORD not in repr((caught.value.details(), caught.value.trailing_metadata()))
    process = Path(f"/proc/{site.gateway.process.pid}")
    seen = {name: (process / name).read_bytes() for name in ("cmdline", "environ")}
    seen["events"] = b"".join([e.SerializeToString() for e in await site.gateway.events()])
    seen.update({str(f): f.read_bytes() for f in site.lab.folder.rglob("*") if f.is_file()})
    del seen[str(site.lab.passphrase_file)]
    for place, data in seen.items():
        assert PASSWORD.encode() not in data, place
        assert PASSPHRASE.encode() not in data, place


async def test_reflection_health_and_identity(site: Site) -> None:
    before = len(await site.gateway.events())
    channel = await site.gateway.channel(None)
    for version in ("v1", "v1alpha"):
        reflect = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        call: Any = reflect(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        names = {s.name for s in (await call.read()).list_services_response.service}
        assert names >= {"labferry.lims.v1.LimsService", "labferry.events.v1.EventLogService"}
    for name in ("", "labferry.lims.v1.LimsService"):
        assert await site.gateway.health(name) == health_pb2.HealthCheckResponse.SERVING
    unauthenticated = (grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_REQUIRED")
    stub: Any = pb_grpc.LimsServiceStub(channel)
    assert await refusal(stub.ListProjects(pb.ListProjectsRequest())) == unauthenticated
    unknown = stub.CheckHealth(pb.CheckHealthRequest(), metadata=(("authorization", "Bearer x"),))
    assert await refusal(unknown) == unauthenticated
    assert {e.type for e in (await site.gateway.events())[before:]} <= {"log.calls_refused.v1"}


@pytest.mark.parametrize(
    ("settings", "status", "problem"),
    [
        ({"endpoint": "http://lims.example:99999/"}, 78, "lims.endpoint"),
        ({"endpoint": "http://[lims/"}, 78, "lims.endpoint"),
        ({"endpoint": "https://lims.example/", "ca_file": "/nowhere/ca.pem"}, 75, "lims.ca_file"),
    ],
)
async def test_a_lims_that_can_never_be_reached_stops_the_start(
    settings: dict[str, str], status: int, problem: str
) -> None:
    async with new_lab() as lab:
        lab.settings["lims"] = {"email": "ops@lab.example", **settings}
        with pytest.raises(ServiceEndedError) as caught:
            await start(lab, "lims_gateway")
        assert caught.value.status == status
        assert problem in caught.value.log
        assert "Traceback" not in caught.value.log
