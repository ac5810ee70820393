"""[transfer-small] 5,000 files of 20 KiB through the `mounted` transport, copied, landed and verified.

The first peer is the least that could honestly be called the same work: a bare loop that reads each file once, hashes
it, writes it under its final name, fsyncs it, and then reads it back past the page cache and compares. It plans
nothing, survives nothing, keeps no times and never looks whether it replaces anything. It uses both cores as well as
threads can: eight of them were the fastest of 1, 2, 4, 8, 16 and 32, and faster than as many processes. The others are
what people run.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from bench import transfer_peers
from bench.carry import CarrySpec
from bench.process_cost import carried_apart, cpu_seconds
from bench.table import Better, Measure, Row, Sample

FILES = 5_000
FILE_BYTES = 20 * 1024
FOLDERS = 50
PEER_THREADS = 8
_PEER_CHUNK = 64
_TARGET_RATIO = 1.25


class TransferSmall:
    """The run to carry, and both ways of carrying it. The same bytes each time, to an empty folder each time."""

    def __init__(self) -> None:
        self._base = Path()
        self._rounds = 0

    @asynccontextmanager
    async def tree(self) -> AsyncIterator[None]:
        """Makes the source beside the benchmark, on the disk that people's checkouts lie on.

        Everything is removed when all rows are done: where thousands of files were deleted, ext4 makes new ones slowly
        for minutes, and the next row would measure that.
        """
        if self._base == Path():
            base = tempfile.TemporaryDirectory(prefix="transfer-small-", dir=Path(__file__).parent)
            atexit.register(base.cleanup)
            self._base = Path(base.name)
            for number in range(FOLDERS):
                (self._source / f"position{number:02}").mkdir(parents=True)
            for number in range(FILES):
                (self._source / _name(number)).write_bytes(secrets.token_bytes(FILE_BYTES))
            os.sync()
        yield

    @property
    def _source(self) -> Path:
        return self._base / "run"

    def _empty_destination(self) -> Path:
        self._rounds += 1
        destination = self._base / f"destination{self._rounds}"
        destination.mkdir()
        # What the round before left to write must not be paid for by this one.
        os.sync()
        return destination

    def ours(self) -> Sample:
        """Scan, name plan, copy, landing and verification, as the engine calls them; no event log behind it."""
        return carried_apart(CarrySpec(str(self._source), str(self._empty_destination())))

    def rclone(self) -> Sample:
        return transfer_peers.by_rclone(self._source, self._empty_destination())

    def rsync(self) -> Sample:
        return transfer_peers.by_rsync(self._source, self._empty_destination(), _PEER_CHUNK)

    def rclone_durable(self) -> Sample:
        return transfer_peers.by_rclone(self._source, self._empty_destination(), durable=True)

    def rsync_durable(self) -> Sample:
        return transfer_peers.by_rsync(self._source, self._empty_destination(), _PEER_CHUNK, durable=True)

    def peer(self) -> Sample:
        """The bare loop. Its folders are made before the clock starts."""
        destination = self._empty_destination()
        for number in range(FOLDERS):
            (destination / f"position{number:02}").mkdir()
        names = [_name(number) for number in range(FILES)]
        chunks = [names[start : start + _PEER_CHUNK] for start in range(0, FILES, _PEER_CHUNK)]

        def copy(chunk: Sequence[str]) -> list[bytes]:
            return [_copy_and_hash(f"{self._source}/{name}", f"{destination}/{name}") for name in chunk]

        def read_back(chunk: Sequence[str]) -> list[bytes]:
            return [_read_back(f"{destination}/{name}") for name in chunk]

        with ThreadPoolExecutor(PEER_THREADS) as threads:
            began, before = time.perf_counter(), cpu_seconds()
            sent = list(threads.map(copy, chunks))
            held = list(threads.map(read_back, chunks))
            ended = time.perf_counter()
        if sent != held:
            raise RuntimeError("the bare loop read back something else")
        return Sample(ended - began, {"cpu_s": cpu_seconds() - before})


def _name(number: int) -> str:
    return f"position{number % FOLDERS:02}/image{number:05}.tif"


def _copy_and_hash(source: str, destination: str) -> bytes:
    reading = os.open(source, os.O_RDONLY)
    content = os.read(reading, FILE_BYTES + 1)
    os.close(reading)
    writing = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(writing, content)
    os.fsync(writing)
    os.close(writing)
    return hashlib.sha256(content).digest()


def _read_back(path: str) -> bytes:
    reading = os.open(path, os.O_RDONLY)
    os.posix_fadvise(reading, 0, 0, os.POSIX_FADV_DONTNEED)
    content = os.read(reading, FILE_BYTES + 1)
    os.close(reading)
    return hashlib.sha256(content).digest()


_tree = TransferSmall()


def _row(peer: str, target: float, run_peer: Measure) -> Row:
    return Row(
        name="transfer-small",
        unit="s",
        better=Better.LOWER,
        target=target,
        peer=peer,
        run_ours=_tree.ours,
        run_peer=run_peer,
        around=_tree.tree,
    )


ROWS = (
    _row("bare copy+hash+fsync+uncached read-back loop, 8 threads", _TARGET_RATIO, _tree.peer),
    _row(transfer_peers.RCLONE, transfer_peers.TARGET_RATIO, _tree.rclone),
    _row(transfer_peers.RSYNC, transfer_peers.TARGET_RATIO, _tree.rsync),
    _row(transfer_peers.RCLONE_DURABLE, transfer_peers.DURABLE_TARGET_RATIO, _tree.rclone_durable),
    _row(transfer_peers.RSYNC_DURABLE, transfer_peers.DURABLE_TARGET_RATIO, _tree.rsync_durable),
)
