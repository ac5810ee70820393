"""[rpc-write] A durable one-event write RPC with identity, audit and log line, against a bare echo.

GetSecret is such a write: the event that somebody read the value is durable before the value is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from bench.echo_peer import EchoPeer
from bench.rpc_load import measure_calls
from bench.table import Better, Row, Sample
from labferry.secrets.v1 import secrets_service_pb2 as pb
from labferry.secrets.v1 import secrets_service_pb2_grpc as pb_grpc
from libs.service_kit.channel import read_token
from libs.service_kit.identity import OPERATOR_TOKEN_FILE, ServiceName, service_token_file

_FOLDER = Path("build/bench/rpc-write")
"""Under the checkout, because a temporary folder may lie in memory, where fsync costs nothing."""
_START_SECONDS = 30.0


@dataclass
class _Servers:
    """What the rounds call. Filled while `_serving` is entered."""

    secrets: grpc.aio.Channel | None = None
    token: str = ""


_servers = _Servers()
_echo = EchoPeer()


def _fresh_folder() -> Path:
    folder = _FOLDER.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _write_configuration(folder: Path, address: str) -> Path:
    passphrase = folder / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text("a passphrase for the bench", encoding="ascii")
    config = folder / "labferry.yaml"
    config.write_text(
        f"state_dir: {folder}\nlisten: {{secrets: '{address}'}}\n"
        f"secrets: {{backend: encrypted_file, passphrase_file: {passphrase}}}\n",
        encoding="utf-8",
    )
    return config


@contextlib.asynccontextmanager
async def _serving() -> AsyncIterator[None]:
    folder = _fresh_folder()
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(_secrets_service(folder))
        _servers.secrets = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        await _store_a_secret(_servers.secrets, folder)
        _servers.token = read_token(service_token_file(folder, ServiceName.LIMS_GATEWAY))
        await stack.enter_async_context(_echo.serving())
        yield
    shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def _secrets_service(folder: Path) -> AsyncIterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = _write_configuration(folder, address)
    log = os.open(folder / "secrets.log", os.O_WRONLY | os.O_CREAT)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.secrets", "--config", str(config), stderr=log
        )
    finally:
        os.close(log)
    try:
        yield address
    finally:
        process.terminate()
        await process.wait()


async def _store_a_secret(channel: grpc.aio.Channel, folder: Path) -> None:
    async with asyncio.timeout(_START_SECONDS):
        await channel.channel_ready()
        operator = read_token(folder / OPERATOR_TOKEN_FILE)
        stub: Any = pb_grpc.SecretsServiceStub(channel)
        request = pb.SetSecretRequest(username="lims", value="p" * 24)
        await stub.SetSecret(request, metadata=_authorization(operator))


def _authorization(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def _run_ours() -> Sample:
    assert _servers.secrets is not None
    stub: Any = pb_grpc.SecretsServiceStub(_servers.secrets)
    request, metadata = pb.GetSecretRequest(username="lims"), _authorization(_servers.token)
    return await measure_calls(lambda: stub.GetSecret(request, metadata=metadata))


RPC_WRITE = Row(
    name="rpc-write",
    unit="calls/s",
    better=Better.HIGHER,
    target=0.70,
    peer=EchoPeer.NAME,
    run_ours=_run_ours,
    run_peer=_echo.measure,
    limits={"p99_ms": 50.0},
    around=_serving,
)
