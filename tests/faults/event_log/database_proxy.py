"""Stands between a store and its database, and loses what a network could lose, at the very moment a test asks for."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

from tests.integration.event_log.postgres_cluster import SUPERUSER, PostgresCluster

_CHUNK = 1 << 20
_SOCKET = ".s.PGSQL.5432"


class Fault(Enum):
    """What happens to the next append on a connection that has appended before."""

    LOSE_ANSWER = "it reaches the database, and its answer is lost with the connection"
    LOSE_ANSWER_AND_SHUT = "the same, and no other connection is let through"
    LOSE_APPEND = "it is lost with the connection"
    HOLD = "its connection is lost, and it reaches the database later, by `deliver`"


class DatabaseProxy:
    """Passes bytes on until `fault` is set, or while `open`."""

    def __init__(self, folder: Path, target: Path) -> None:
        self._folder = folder
        self._target = target
        self._links: set[asyncio.Task[None]] = set()
        self._held: tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._server: asyncio.Server | None = None
        self.fault: Fault | None = None

    def url(self, direct: str) -> str:
        """The address, for a database whose own one is `direct`."""
        return f"postgresql://{SUPERUSER}@{urlsplit(direct).path}?host={self._folder}"

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, self._folder / _SOCKET)

    async def shut(self) -> None:
        """Breaks every connection; a new one is refused."""
        self._refuse()
        for link in self._links:
            link.cancel()
        if self._links:
            await asyncio.wait(self._links)

    async def deliver(self) -> bytes:
        """Gives the database what was held; its answer."""
        assert self._held is not None
        request, reader, writer = self._held
        writer.write(request)
        answer = await reader.read(_CHUNK)
        writer.close()
        return answer

    def _refuse(self) -> None:
        assert self._server is not None
        self._server.close()
        (self._folder / _SOCKET).unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.create_task(self._link(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _link(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        held = False
        server, to_server = await asyncio.open_unix_connection(self._target / _SOCKET)
        answers = asyncio.create_task(self._answers(server, to_client))
        appends = False
        try:
            while chunk := await client.read(_CHUNK):
                if appends and self.fault is not None:
                    fault, self.fault = self.fault, None
                    answers.cancel()
                    await asyncio.wait({answers})
                    if fault in (Fault.LOSE_ANSWER, Fault.LOSE_ANSWER_AND_SHUT):
                        to_server.write(chunk)
                        await server.read(_CHUNK)
                    if fault is Fault.LOSE_ANSWER_AND_SHUT:
                        self._refuse()
                    if fault is Fault.HOLD:
                        self._held, held = (chunk, server, to_server), True
                    return
                appends = appends or b"append_events(" in chunk
                to_server.write(chunk)
        finally:
            answers.cancel()
            to_client.close()
            if not held:
                to_server.close()

    async def _answers(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while chunk := await server.read(_CHUNK):
                to_client.write(chunk)
        to_client.close()


@asynccontextmanager
async def running_proxy(cluster: PostgresCluster) -> AsyncIterator[DatabaseProxy]:
    folder = Path(tempfile.mkdtemp(prefix="lf-px-"))
    proxy = DatabaseProxy(folder, cluster.folder)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.shut()
        shutil.rmtree(folder)
