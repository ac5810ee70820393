"""The peer of the RPC rows, called as they are: a bare echo of 300 bytes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import BytesValue

from bench.echo_server import METHOD
from bench.rpc_load import measure_calls
from bench.table import Sample

_MESSAGE = BytesValue(value=bytes(300))


class EchoPeer:
    """Measured while `serving` is entered."""

    NAME = "grpc.aio + uvloop echo"

    def __init__(self) -> None:
        self._channel: grpc.aio.Channel | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.echo_server", stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            port = int(await process.stdout.readline())
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as self._channel:
                yield
        finally:
            process.terminate()
            await process.wait()

    async def measure(self) -> Sample:
        if self._channel is None:
            raise RuntimeError("the echo server isn't running")
        echo: Any = self._channel.unary_unary(
            METHOD, request_serializer=BytesValue.SerializeToString, response_deserializer=BytesValue.FromString
        )
        return await measure_calls(lambda: echo(_MESSAGE))
