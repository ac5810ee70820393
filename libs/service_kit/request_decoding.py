"""Bytes that are no message reach the call's guard as such: gRPC's own answer would be UNKNOWN, before anybody asked
who calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError


class UnreadableRequest:
    """Stands in a request's place."""


UNREADABLE: Final = UnreadableRequest()


class TolerantDecoding:
    """What generated code adds a service's methods to, in the place of the server."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, _: Sequence[Any]) -> None:
        """Generated code gives the same methods by their names too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        tolerant = {method: _tolerant(handler) for method, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, tolerant),))


def _tolerant(handler: Any) -> Any:
    decode = _decode(handler.request_deserializer)
    if handler.unary_unary is not None:
        make, behaviour = grpc.unary_unary_rpc_method_handler, handler.unary_unary
    elif handler.unary_stream is not None:
        make, behaviour = grpc.unary_stream_rpc_method_handler, handler.unary_stream
    else:
        raise TypeError("a method that takes a stream of requests is published")
    return make(behaviour, request_deserializer=decode, response_serializer=handler.response_serializer)


def _decode(from_bytes: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def decode(data: bytes) -> Any:
        try:
            return from_bytes(data)
        except DecodeError:
            return UNREADABLE

    return decode
