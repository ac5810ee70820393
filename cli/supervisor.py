"""Runs the three services as processes of their own, and ends them in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from libs.service_kit.identity import ServiceName

START_ORDER: Sequence[ServiceName] = (ServiceName.SECRETS, ServiceName.LIMS_GATEWAY, ServiceName.SYNC_ENGINE)
_START_SECONDS = 30.0
_STOP_SECONDS = 20.0


class ServiceDiedError(Exception):
    """A service ended although nobody asked it to."""

    def __init__(self, service: ServiceName, status: int) -> None:
        super().__init__(f"{service} ended with status {status}; its log says why")
        self.service, self.status = service, status


@dataclass(slots=True)
class ServiceProcess:
    """One running service. It gets SIGTERM when its starter dies, so none is left behind."""

    service: ServiceName
    address: str
    process: asyncio.subprocess.Process

    @classmethod
    async def start(
        cls, service: ServiceName, config: Path, address: str, log: BinaryIO | None = None
    ) -> ServiceProcess:
        """Starts it and returns when its health is SERVING. `log` None: it writes to our standard error.

        ServiceDiedError when it ends instead.
        """
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                f"services.{service}",
                "--config",
                str(config),
                "--end-with-parent",
                str(os.getpid()),
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        started = cls(service, address, process)
        serving = asyncio.create_task(started._until_serving())
        ended = asyncio.create_task(process.wait())
        try:
            await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED, timeout=_START_SECONDS)
            if not serving.done():
                status = ended.result() if ended.done() else -1
                await started.stop()
                raise ServiceDiedError(service, status)
            serving.result()
        finally:
            serving.cancel()
            ended.cancel()
        return started

    async def _until_serving(self) -> None:
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            call = stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
            await call

    async def stop(self) -> int:
        """SIGTERM, then SIGKILL if it doesn't end. Returns its exit status."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await self.process.wait()
            except TimeoutError:
                await self.kill()
        return self.process.returncode if self.process.returncode is not None else 0

    async def kill(self) -> None:
        """SIGKILL, as a power cut would do it."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


async def first_to_end(services: Sequence[ServiceProcess]) -> ServiceProcess:
    """Waits until any of them ends."""
    tasks = {asyncio.create_task(s.process.wait()): s for s in services}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[done.pop()]
    finally:
        for task in tasks:
            task.cancel()
