"""Real service processes for tests: started with a configuration, reached over a Unix socket, ended or killed."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import yaml
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from labferry.events.v1 import event_log_service_pb2 as log_pb
from labferry.events.v1 import event_log_service_pb2_grpc as log_grpc
from labferry.events.v1 import event_pb2
from labferry.lims.v1 import lims_service_pb2_grpc as lims_grpc
from labferry.secrets.v1 import secrets_service_pb2_grpc as secrets_grpc
from libs.service_kit.channel import open_channel, read_token
from tests.processes.order import ANNOUNCE, Order
from tests.processes.service_process import NO_KEYRING, ServiceProcess, start_process

START_SECONDS = 60
PASSPHRASE = "correct horse battery"


class ServiceEndedError(Exception):
    """The process ended before it served."""

    def __init__(self, status: int, log: str) -> None:
        super().__init__(f"exit status {status}\n{log}")
        self.status, self.log = status, log


@dataclass(frozen=True)
class Lab:
    """One state folder with its configuration. The path is short: Unix sockets allow about 100 characters."""

    folder: Path
    settings: dict[str, Any]

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def secrets_file(self) -> Path:
        return self.state_dir / "exlab-wizard" / "secrets.enc"

    @property
    def passphrase_file(self) -> Path:
        return self.folder / "passphrase"

    def address(self, service: str) -> str:
        return str(self.settings["listen"][service])

    def log_text(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text(encoding="utf-8")

    def token(self, who: str) -> str:
        """`who`: "operator" or a service's name."""
        name = "operator.token" if who == "operator" else f"{who}/service.token"
        return read_token(self.state_dir / name)

    def write_config(self) -> Path:
        path = self.folder / "labferry.yaml"
        # Several services may start at once, and read it while another one's start writes it.
        new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        new.write_text(yaml.safe_dump(self.settings), encoding="utf-8")
        return new.replace(path)

    def write_passphrase(self, text: str = PASSPHRASE, mode: int = 0o600) -> None:
        self.passphrase_file.write_text(text, encoding="utf-8")
        self.passphrase_file.chmod(mode)


@asynccontextmanager
async def new_lab() -> AsyncIterator[Lab]:
    folder = Path(tempfile.mkdtemp(prefix="lf-"))
    lab = Lab(folder, {})
    lab.settings.update(
        state_dir=str(lab.state_dir),
        listen={s: f"unix:{folder}/{s}.sock" for s in ("secrets", "lims_gateway", "sync_engine")},
        secrets={"backend": "encrypted_file", "passphrase_file": str(lab.passphrase_file)},
    )
    try:
        yield lab
    finally:
        shutil.rmtree(folder)


@dataclass
class RunningService:
    """A service process, and stubs for whoever calls it."""

    lab: Lab
    name: str
    process: ServiceProcess
    address: str
    """Where it says that it serves."""
    resources: AsyncExitStack = field(repr=False)

    async def channel(self, who: str | None) -> grpc.aio.Channel:
        """A channel with the token of "operator" or of a service; None: without any."""
        address = self.lab.address(self.name)
        if who is None:
            return await self.resources.enter_async_context(grpc.aio.insecure_channel(address))
        token = self.lab.token(who)
        return await self.resources.enter_async_context(open_channel(address, lambda: token))

    async def secrets(self, who: str = "operator") -> Any:
        return secrets_grpc.SecretsServiceStub(await self.channel(who))

    async def lims(self, who: str = "operator") -> Any:
        return lims_grpc.LimsServiceStub(await self.channel(who))

    async def event_log(self) -> Any:
        return log_grpc.EventLogServiceStub(await self.channel("operator"))

    async def events(self) -> list[event_pb2.Event]:
        stub = await self.event_log()
        return [e async for batch in stub.ReadEvents(log_pb.ReadEventsRequest()) for e in batch.events]

    async def health(self, service: str = "") -> int:
        stub = health_pb2_grpc.HealthStub(await self.channel(None))
        return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)

    async def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.terminate()
        return await self.ended()

    async def kill(self) -> None:
        self.process.kill()
        await self.ended()

    async def ended(self) -> int:
        async with asyncio.timeout(START_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def running(lab: Lab, name: str, *, environment: Mapping[str, str] = NO_KEYRING) -> AsyncIterator[RunningService]:
    """A service that serves. ServiceEndedError when it doesn't."""
    service = await start(lab, name, environment=environment)
    try:
        yield service
    finally:
        await service.resources.aclose()
        if service.process.returncode is None:
            await service.stop()


async def start(
    lab: Lab, name: str, *, module: str = "", environment: Mapping[str, str] = NO_KEYRING
) -> RunningService:
    """Returns once the service says itself that it serves: a stranger might answer at its address.

    `module` is run in the place of the service's own. `environment` comes on top of this process's, without what tells
    of its session.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LABFERRY_", "DBUS_"))}
    announced, announce_to = os.pipe()
    with (lab.folder / f"{name}.log").open("ab") as log, open(announced, "rb") as announcement:
        process = await start_process(
            Order(
                module or f"services.{name}",
                ("--config", str(lab.write_config()), "--announce-to", ANNOUNCE),
                {**kept, **environment},
                str(Path.cwd()),
            ),
            log,
            announce_to,
        )
        os.close(announce_to)
        async with asyncio.timeout(START_SECONDS):
            address = await asyncio.to_thread(announcement.readline)
    if not address:
        raise ServiceEndedError(await process.wait(), lab.log_text(name))
    return RunningService(lab, name, process, address.decode().strip(), AsyncExitStack())


def error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """The ErrorInfo that every error carries."""
    return detail(error, error_details_pb2.ErrorInfo)


def detail(error: grpc.aio.AioRpcError, kind: Any) -> Any:
    status = rpc_status.from_call(error)
    assert status is not None, error
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            return message
    raise AssertionError(f"no {kind.DESCRIPTOR.name} in {status}")


async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    """Status and reason of a call that must be refused."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        info = error_info(error)
        assert info.domain in ("labferry", "secrets.labferry", "lims.labferry")
        assert "Traceback" not in (error.details() or "")
        return error.code(), info.reason
    raise AssertionError(f"answered: {answer}")


async def wrong_fields(call: Awaitable[Any]) -> set[str]:
    """The fields that an INVALID_ARGUMENT names."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        assert (error.code(), error_info(error).reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        return {v.field for v in detail(error, error_details_pb2.BadRequest).field_violations}
    raise AssertionError(f"answered: {answer}")
