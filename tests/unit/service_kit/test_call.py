"""The interceptor: identity, roles, deadlines, and no word of a defect beyond its id."""

from __future__ import annotations

import asyncio
import string
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
import structlog
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import BytesValue
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from libs.service_kit import call
from libs.service_kit.call_log import CallLog
from libs.service_kit.channel import open_channel, read_token
from libs.service_kit.errors import FieldViolation, InvalidRequestError, PermissionDeniedError, to_status
from libs.service_kit.identities import ensure_identities
from libs.service_kit.identity import OPERATOR_TOKEN_FILE, READERS, current_caller
from libs.service_kit.server import PublishedService, ServiceServer
from libs.service_kit.settings import LoggingSettings

SECRET = "canary-in-a-defect"


class Servicer:
    """Methods that misbehave, each in its way."""

    def __init__(self) -> None:
        self.given_up = asyncio.Event()

    async def Defect(self, request: Empty, context: Any) -> Empty:
        raise ZeroDivisionError(SECRET)

    async def Slow(self, request: Empty, context: Any) -> Empty:
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up.set()
        return Empty()

    async def Fine(self, request: Empty, context: Any) -> Empty:
        assert current_caller().actor == "operator-1"
        return Empty()

    async def Nobody(self, request: Empty, context: Any) -> Empty:
        return Empty()

    async def Broken(self, request: Empty, context: Any) -> AsyncIterator[Empty]:
        yield Empty()
        raise ZeroDivisionError(SECRET)

    async def Endless(self, request: Empty, context: Any) -> AsyncIterator[BytesValue]:
        try:
            while True:
                yield BytesValue(value=bytes(100_000))
        finally:
            self.given_up.set()


def _add(servicer: Servicer, server: grpc.aio.Server) -> None:
    handlers: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, name), request_deserializer=Empty.FromString, response_serializer=Empty.SerializeToString
        )
        for name in ("Defect", "Slow", "Fine", "Nobody")
    }
    for name in ("Broken", "Endless"):
        handlers[name] = grpc.unary_stream_rpc_method_handler(
            getattr(servicer, name),
            request_deserializer=Empty.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
    server.add_registered_method_handlers("test.Service", handlers)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[tuple[Servicer, grpc.aio.Channel]]:
    servicer = Servicer()
    roles = dict.fromkeys(("Defect", "Slow", "Fine", "Broken", "Endless"), READERS) | {"Nobody": frozenset()}
    published = PublishedService("test.Service", servicer, _add, roles)
    logger = structlog.get_logger()
    server = ServiceServer(
        "127.0.0.1:0",
        [published],
        ensure_identities(tmp_path),
        logger,
        CallLog(LoggingSettings(), "test", logger),
        lambda error: None,
    )
    address = await server.start()
    token = read_token(tmp_path / OPERATOR_TOKEN_FILE)
    async with open_channel(address, lambda: token) as channel:
        yield servicer, channel
    await server.drain(asyncio.Event(), 0)


async def _refused(awaiting: Any) -> tuple[grpc.StatusCode, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await awaiting
    status = rpc_status.from_call(refused.value)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return refused.value.code(), info.reason, refused.value.details() or ""


def _call(channel: grpc.aio.Channel, method: str, **options: Any) -> Any:
    return channel.unary_unary(f"/test.Service/{method}", request_serializer=Empty.SerializeToString)(
        Empty(), **options
    )


async def test_a_defect_tells_the_caller_its_id_and_nothing_else(service: tuple[Servicer, grpc.aio.Channel]) -> None:
    code, reason, details = await _refused(_call(service[1], "Defect"))
    assert (code, reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert SECRET not in details
    assert "ZeroDivisionError" not in details


async def test_a_defect_in_a_stream_too(service: tuple[Servicer, grpc.aio.Channel]) -> None:
    stream = service[1].unary_stream("/test.Service/Broken", request_serializer=Empty.SerializeToString)(Empty())
    assert await stream.read() == b""
    assert (await _refused(stream.read()))[:2] == (grpc.StatusCode.INTERNAL, "INTERNAL")


async def test_a_reader_that_takes_nothing_is_cut_off(
    service: tuple[Servicer, grpc.aio.Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "READER_SECONDS", 0.2)
    servicer, channel = service
    stream = channel.unary_stream("/test.Service/Endless", request_serializer=Empty.SerializeToString)(Empty())
    await stream.read()
    async with asyncio.timeout(20):
        # The method ended while its reader still hasn't taken anything more.
        await servicer.given_up.wait()
    taken = 1
    with pytest.raises(grpc.aio.AioRpcError) as cut:
        while await stream.read() is not grpc.aio.EOF:
            taken += 1
    assert taken > 1
    status = rpc_status.from_call(cut.value)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (cut.value.code(), info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SUBSCRIBER_TOO_SLOW")


async def test_a_reader_that_takes_its_time_is_not_cut_off(
    service: tuple[Servicer, grpc.aio.Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "READER_SECONDS", 5.0)
    servicer, channel = service
    stream = channel.unary_stream("/test.Service/Endless", request_serializer=Empty.SerializeToString)(Empty())
    for _ in range(100):
        assert await stream.read() is not grpc.aio.EOF
    assert not servicer.given_up.is_set()
    stream.cancel()


async def test_a_call_without_a_deadline_gets_one(
    service: tuple[Servicer, grpc.aio.Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "UNARY_DEADLINE_SECONDS", 0.05)
    refused = await _refused(_call(service[1], "Slow"))
    assert refused[:2] == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_a_call_that_the_client_gave_up_on_stops_working(service: tuple[Servicer, grpc.aio.Channel]) -> None:
    servicer, channel = service
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _call(channel, "Slow", timeout=0.1)
    assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(10):
        await servicer.given_up.wait()


def test_what_a_caller_sent_is_cut_before_it_is_quoted() -> None:
    long = "x" * 100_000
    error = InvalidRequestError(*(FieldViolation(f"f{n}", long) for n in range(100)))
    packed = sum(len(value) for _, value in to_status(error).trailing_metadata or ())
    assert packed < 10_000


async def test_identity_and_roles(service: tuple[Servicer, grpc.aio.Channel], tmp_path: Path) -> None:
    _, channel = service
    await _call(channel, "Fine")
    assert (await _refused(_call(channel, "Nobody")))[:2] == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")


def test_a_method_without_roles_can_not_be_published() -> None:
    with pytest.raises(ValueError, match="roles are given for"):
        PublishedService("test.Service", Servicer(), _add, {"Fine": READERS})


@pytest.mark.parametrize("character", ["x", "\n", "é", "\U0001f52c", "\udc80"])
def test_what_a_caller_gets_quoted_leaves_room_for_the_status(character: str) -> None:
    long = character * 5_000
    wrong = InvalidRequestError(*(FieldViolation(long, long) for _ in range(30)))
    denied = PermissionDeniedError(long, metadata={f"key_{number}": long for number in range(9)})
    for error in (wrong, denied):
        status = to_status(error)
        # In trailing metadata the message is escaped and the details are in base64.
        message = quote(status.details, safe=string.printable)
        details = sum(len(value) for _, value in status.trailing_metadata or ()) * 4 // 3
        assert 0 < len(message) + details < 7_800


def test_a_long_path_in_letters_of_another_script_is_quoted_whole() -> None:
    path = "共焦点顕微鏡" * 25
    assert to_status(PermissionDeniedError(path)).details == path
