"""labferry up: the three services in the foreground."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import grpc
import typer

from cli.connection import Connection, chosen_configuration
from cli.failure import run_command
from cli.options import ConfigOption
from cli.output import errors, note
from cli.supervisor import START_ORDER, ServiceDiedError, ServiceProcess, first_to_end
from labferry.secrets.v1 import secrets_service_pb2, secrets_service_pb2_grpc
from libs.service_kit.config import load_configuration
from libs.service_kit.identity import OPERATOR_TOKEN_FILE, ServiceName

# A passphrase that is wrong, too short for a new file, or given too soon after wrong ones.
_ASK_AGAIN = frozenset(
    {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
)


def up(config: ConfigOption = None) -> None:
    """Start secrets, lims_gateway and sync_engine; end them on Ctrl-C. Asks for the passphrase on a terminal."""
    run_command(_up(config))


async def _up(named: Path | None) -> int:
    config = chosen_configuration(named)
    # Every mistake is told once, here, and not by each of the three.
    settings = load_configuration(config).settings
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    running: list[ServiceProcess] = []
    try:
        for service in START_ORDER:
            running.append(await ServiceProcess.start(service, config))
        for process in running:
            note(f"{process.service:<13} {process.address}")
        note(f"{'token':<13} {settings.state_dir / OPERATOR_TOKEN_FILE}")
        if errors.is_terminal:
            await _unseal(Connection.from_configuration(config, None))
        return await _until_asked(stop, running)
    except ServiceDiedError as error:
        note(str(error))
        return 1
    finally:
        for process in reversed(running):
            await process.stop()


async def _until_asked(stop: asyncio.Event, running: list[ServiceProcess]) -> int:
    asked = asyncio.create_task(stop.wait())
    ended = asyncio.create_task(first_to_end(running))
    try:
        await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            note("ending")
            return 0
        died = ended.result()
        note(f"{died.service} ended with status {died.process.returncode}; ending the others")
        return 1
    finally:
        asked.cancel()
        ended.cancel()


async def _unseal(connection: Connection) -> None:
    """Asks for the passphrase when the store is sealed. An empty answer leaves it sealed."""
    async with connection.channel(ServiceName.SECRETS) as channel:
        stub = secrets_service_pb2_grpc.SecretsServiceStub(channel)
        status = await stub.GetStatus(secrets_service_pb2.GetStatusRequest())
        if not status.sealed:
            return
        new = not status.initialized
        words = "New passphrase for the secrets file" if new else "Passphrase of the secrets file"
        while passphrase := await asyncio.to_thread(
            lambda: typer.prompt(words, hide_input=True, default="", show_default=False, err=True)
        ):
            try:
                if new:
                    await stub.Initialize(secrets_service_pb2.InitializeRequest(passphrase=passphrase))
                else:
                    await stub.Unseal(secrets_service_pb2.UnsealRequest(passphrase=passphrase))
            except grpc.aio.AioRpcError as error:
                if error.code() not in _ASK_AGAIN:
                    raise
                note(error.details() or error.code().name)
            else:
                note("the secrets are open")
                return
        note("the secrets stay sealed; labferry secret unseal opens them")
