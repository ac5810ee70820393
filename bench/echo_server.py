"""The peer of the RPC rows: a bare grpc.aio echo server under uvloop, in a process of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import uvloop
from google.protobuf.wrappers_pb2 import BytesValue

METHOD = "/labferry.bench.Echo/Echo"


async def _echo(request: BytesValue, context: grpc.aio.ServicerContext[Any, Any]) -> BytesValue:
    return request


async def main() -> None:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        _echo, request_deserializer=BytesValue.FromString, response_serializer=BytesValue.SerializeToString
    )
    service, method = METHOD[1:].split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
