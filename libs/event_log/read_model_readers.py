"""The connections that queries on read models use, and how a swap of the file waits for them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

from libs.event_log.read_model import open_reader, read_at_once
from libs.event_log.store import LogClosedError

T = TypeVar("T")


class ReadModelReaders:
    """A fixed number of read-only connections, lent to one query at a time each."""

    def __init__(self, path: Path, size: int, threads: Executor) -> None:
        self._path = path
        self._size = size
        self._threads = threads
        self._open = 0
        # None says that there won't be any more connections.
        self._free: asyncio.Queue[sqlite3.Connection | None] = asyncio.Queue()

    async def open(self) -> None:
        while not self._free.empty():
            self._free.get_nowait()
        while self._open < self._size:
            connection = await asyncio.get_running_loop().run_in_executor(self._threads, open_reader, self._path)
            self._open += 1
            self._free.put_nowait(connection)

    async def close(self) -> None:
        """Waits for running queries and closes every connection. Those that come later wait for `open` or `refuse`."""
        while self._open:
            connection = await self._free.get()
            if connection is not None:
                connection.close()
                self._open -= 1

    def refuse(self) -> None:
        """After `close`: queries that wait, or come later, get LogClosedError."""
        self._free.put_nowait(None)

    async def run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        connection = await self._free.get()
        if connection is None:
            self._free.put_nowait(None)
            raise LogClosedError("the read models are closed")
        reading = asyncio.get_running_loop().run_in_executor(self._threads, read_at_once, connection, read)

        def give_back(done: asyncio.Future[T]) -> None:
            self._free.put_nowait(connection)
            if not done.cancelled():
                # Marks the error as seen; a caller that was cancelled doesn't ask for it any more.
                done.exception()

        reading.add_done_callback(give_back)
        # The thread goes on when the caller is cancelled, and the connection is its own until it is done.
        return await asyncio.shield(reading)
