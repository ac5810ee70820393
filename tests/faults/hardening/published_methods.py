"""What a running service publishes: asked by reflection, described by the generated code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

# Importing them makes their descriptors known.
from labferry.events.v1 import event_log_service_pb2
from labferry.lims.v1 import lims_service_pb2
from labferry.secrets.v1 import secrets_service_pb2
from labferry.sync.v1 import (
    equipment_service_pb2,
    problem_service_pb2,
    run_service_pb2,
    staging_service_pb2,
    sync_service_pb2,
)

assert event_log_service_pb2 and lims_service_pb2 and secrets_service_pb2
assert equipment_service_pb2 and problem_service_pb2 and run_service_pb2 and staging_service_pb2 and sync_service_pb2

PATIENCE = 60.0


@dataclass(frozen=True)
class Method:
    """One method of a published service."""

    descriptor: MethodDescriptor

    @property
    def name(self) -> str:
        """As docs/integrator.md writes it."""
        return f"{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def request(self) -> Descriptor:
        return self.descriptor.input_type

    def message(self, **fields: Any) -> Message:
        return message_factory.GetMessageClass(self.request)(**fields)

    def call(self, channel: grpc.aio.Channel, request: Message | bytes, *, timeout: float = PATIENCE) -> Any:
        """Not awaited yet. `bytes` are sent as they are."""
        path = f"/{self.name}"
        answer = message_factory.GetMessageClass(self.descriptor.output_type).FromString
        make = channel.unary_stream if self.descriptor.server_streaming else channel.unary_unary
        call = make(path, request_serializer=_as_bytes, response_deserializer=answer)
        return call(request, timeout=timeout)

    async def answered(
        self, channel: grpc.aio.Channel, request: Message | bytes, *, timeout: float = PATIENCE
    ) -> grpc.aio.AioRpcError | None:
        """The error of a call; None when there is an answer, or a stream's first one. Nothing is left open."""
        call = self.call(channel, request, timeout=timeout)
        try:
            await (call.read() if self.descriptor.server_streaming else call)
        except grpc.aio.AioRpcError as error:
            return error
        finally:
            call.cancel()
        return None


def _as_bytes(request: Message | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


async def published_methods(channel: grpc.aio.Channel) -> Sequence[Method]:
    """Every method of Labferry's own services behind a channel."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    answers = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    names = [s.name async for answer in answers for s in answer.list_services_response.service]
    pool = descriptor_pool.Default()
    ours = [pool.FindServiceByName(name) for name in sorted(names) if name.startswith("labferry.")]  # type: ignore[no-untyped-call]
    return [Method(method) for service in ours for method in service.methods]
