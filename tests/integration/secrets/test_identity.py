"""Nobody gets in without a token; health and reflection answer everybody."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from labferry.secrets.v1 import secrets_service_pb2 as pb
from labferry.secrets.v1 import secrets_service_pb2_grpc as pb_grpc
from tests.integration.secrets.running_service import RunningService, refusal


async def test_no_call_without_a_known_token(secrets: RunningService) -> None:
    stub: Any = pb_grpc.SecretsServiceStub(await secrets.channel(None))
    for authorization in (None, "Bearer not-a-token", "Bearer ", "Basic b3A6b3A="):
        metadata = (("authorization", authorization),) if authorization else None
        for call in (
            stub.GetStatus(pb.GetStatusRequest(), metadata=metadata),
            stub.GetSecret(pb.GetSecretRequest(username="lims"), metadata=metadata),
            stub.SetSecret(pb.SetSecretRequest(username="lims", value="v"), metadata=metadata),
        ):
            assert await refusal(call) == (grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_REQUIRED")


async def test_reflection_and_health_answer_everybody(secrets: RunningService) -> None:
    channel = await secrets.channel(None)
    for version in ("v1", "v1alpha"):
        reflect = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        call: Any = reflect(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        answer = await call.read()
        names = {s.name for s in answer.list_services_response.service}
        assert names >= {"labferry.secrets.v1.SecretsService", "labferry.events.v1.EventLogService"}
    for name in ("", "labferry.secrets.v1.SecretsService", "labferry.events.v1.EventLogService"):
        assert await secrets.health(name) == health_pb2.HealthCheckResponse.SERVING
