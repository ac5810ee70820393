"""Runs the three services as processes of their own, and ends them in order."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

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
    async def start(cls, service: ServiceName, config: Path | None, log: BinaryIO | None = None) -> ServiceProcess:
        """Starts it and returns once it serves. `config` None: the environment configures it. `log` None: it writes to
        our standard error.

        ServiceDiedError when it ends instead. It says itself that it serves: whoever answers at its address might be
        somebody else's.
        """
        announcement, announce_to = _pipe()
        with announcement:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", f"services.{service}", *(("--config", str(config)) if config else ())),
                    *("--end-with-parent", str(os.getpid()), "--announce-to", str(announce_to)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=(announce_to,),
                )
            finally:
                os.close(announce_to)
            started = cls(service, "", process)
            try:
                async with asyncio.timeout(_START_SECONDS):
                    started.address = (await _line_from(announcement)).strip()
            except TimeoutError:
                await started.stop()
        if not started.address:
            raise ServiceDiedError(service, await process.wait())
        return started

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


def _pipe() -> tuple[io.FileIO, int]:
    """The reading end, and the descriptor of the writing end."""
    reading, writing = os.pipe()
    return open(reading, "rb", buffering=0), writing


async def _line_from(pipe: io.FileIO) -> str:
    """What is written to a pipe, without a thread that a silent writer could hold for ever; "" at its end."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        return (await reader.readline()).decode()
    finally:
        transport.close()


async def first_to_end(services: Sequence[ServiceProcess]) -> ServiceProcess:
    """Waits until any of them ends."""
    tasks = {asyncio.create_task(s.process.wait()): s for s in services}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[done.pop()]
    finally:
        for task in tasks:
            task.cancel()
