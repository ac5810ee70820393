"""A service's process, forked from a server that has the imports behind it; or started as the program that it is."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from tests.processes.order import Order

_FORK_SERVER = "tests.processes.fork_server"
# What Python, its imports and the system's libraries look at once, when a program begins.
_LOOKED_AT_ONCE = ("LD_", "PYTHON", "LC_", "LANG", "TZ", "TMPDIR", "HOME", "GRPC_", "DBUS_", "XDG_")
# Nobody's real keyring is to be touched by a test.
NO_KEYRING = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}


class ServiceProcess(Protocol):
    """As asyncio's."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def send_signal(self, signal: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    async def wait(self) -> int: ...


class ForkedProcess:
    """A child of the fork server, which tells of its end."""

    def __init__(self, pid: int, told: asyncio.StreamReader, connection: asyncio.StreamWriter) -> None:
        self.pid = pid
        self._handle = os.pidfd_open(pid)
        self._returncode: int | None = None
        self._ending = asyncio.create_task(self._until_ended(told, connection))

    @property
    def returncode(self) -> int | None:
        return self._returncode

    def send_signal(self, signal_number: int, /) -> None:
        """ProcessLookupError when it has ended."""
        if self._returncode is not None:
            raise ProcessLookupError
        signal.pidfd_send_signal(self._handle, signal_number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        return await asyncio.shield(self._ending)

    async def _until_ended(self, told: asyncio.StreamReader, connection: asyncio.StreamWriter) -> int:
        try:
            line = await told.readline()
        except asyncio.CancelledError:
            # As asyncio's own: what nobody has ended goes with the loop.
            self.kill()
            raise
        connection.close()
        os.close(self._handle)
        self._returncode = int(line)
        return self._returncode


async def start_process(order: Order, log: BinaryIO, announce_to: int) -> ServiceProcess:
    """`announce_to` is the one descriptor that the process inherits."""
    server = _fork_server()
    if server.inherits == _inherits(order.environment):
        return await _forked(server, order, log, announce_to)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", order.module, *order.arguments_for(announce_to)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=order.folder,
        env=order.environment,
        pass_fds=(announce_to,),
    )


async def _forked(server: _ForkServer, order: Order, log: BinaryIO, announce_to: int) -> ForkedProcess:
    told, telling = socket.socketpair()
    with telling:
        files = (log.fileno(), announce_to, telling.fileno())
        socket.send_fds(server.orders, [msgspec.json.encode(order)], files)
    reader, writer = await asyncio.open_connection(sock=told)
    return ForkedProcess(int(await reader.readline()), reader, writer)


@dataclass(frozen=True, slots=True)
class _Inherited:
    """What a process gets from the one that starts it, and a fork of the server from the server."""

    looked_at_once: Mapping[str, str]
    limits: str


def _inherits(environment: Mapping[str, str]) -> _Inherited:
    looked_at_once = {name: value for name, value in environment.items() if name.startswith(_LOOKED_AT_ONCE)}
    return _Inherited(looked_at_once, Path("/proc/self/limits").read_text(encoding="ascii"))


@dataclass(frozen=True, slots=True)
class _ForkServer:
    orders: socket.socket
    inherits: _Inherited


@cache
def _fork_server() -> _ForkServer:
    """It ends when this process does."""
    ours, orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, **NO_KEYRING}
    with orders:
        process = subprocess.Popen(
            (sys.executable, "-m", _FORK_SERVER, str(orders.fileno())),
            stdin=subprocess.DEVNULL,
            env=environment,
            pass_fds=(orders.fileno(),),
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return _ForkServer(ours, _inherits(environment))
