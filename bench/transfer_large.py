"""[transfer-large] 4 files of 512 MiB through the `mounted` transport, copied, landed and verified.

The first peer is the least that could honestly be called the same work: two threads that each copy a file in blocks
while hashing it, fsync it, and then read it back past the page cache and compare. The others are what people run.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from bench import transfer_peers
from bench.carry import CarrySpec
from bench.process_cost import carried_apart, cpu_seconds
from bench.table import Better, Measure, Row, Sample

FILES = 4
FILE_BYTES = 512 << 20
_BLOCK = 4 << 20
_THREADS = 2
_TARGET_RATIO = 1.25


class TransferLarge:
    """The run to carry, and both ways of carrying it, to an empty folder each time."""

    def __init__(self) -> None:
        self._base = Path()

    @asynccontextmanager
    async def tree(self) -> AsyncIterator[None]:
        """Makes the source beside the benchmark, on the disk that people's checkouts lie on, and removes everything."""
        with tempfile.TemporaryDirectory(prefix="transfer-large-", dir=Path(__file__).parent) as base:
            self._base = Path(base)
            (self._base / "run").mkdir()
            for number in range(FILES):
                _write_random(self._base / "run" / f"{number}.tif")
            os.sync()
            yield

    def _empty_destination(self) -> Path:
        destination = self._base / "destination"
        shutil.rmtree(destination, ignore_errors=True)
        destination.mkdir()
        # What the round before left to write must not be paid for by this one.
        os.sync()
        return destination

    def ours(self) -> Sample:
        return carried_apart(CarrySpec(str(self._base / "run"), str(self._empty_destination())))

    def rclone(self) -> Sample:
        return transfer_peers.by_rclone(self._base / "run", self._empty_destination())

    def rsync(self) -> Sample:
        return transfer_peers.by_rsync(self._base / "run", self._empty_destination(), 1)

    def rclone_durable(self) -> Sample:
        return transfer_peers.by_rclone(self._base / "run", self._empty_destination(), durable=True)

    def rsync_durable(self) -> Sample:
        return transfer_peers.by_rsync(self._base / "run", self._empty_destination(), 1, durable=True)

    def peer(self) -> Sample:
        destination = self._empty_destination()
        pairs = [(self._base / "run" / f"{n}.tif", destination / f"{n}.tif") for n in range(FILES)]
        before, began = cpu_seconds(), time.perf_counter()
        with ThreadPoolExecutor(_THREADS) as threads:
            sent = list(threads.map(lambda pair: _copy_and_hash(*pair), pairs))
            held = list(threads.map(lambda pair: _read_back(pair[1]), pairs))
        ended = time.perf_counter()
        if sent != held:
            raise RuntimeError("the bare loop read back something else")
        return Sample(ended - began, {"cpu_s": cpu_seconds() - before})


def _write_random(path: Path) -> None:
    with open(path, "wb") as file:
        for _ in range(FILE_BYTES // _BLOCK):
            file.write(secrets.token_bytes(_BLOCK))


def _copy_and_hash(source: Path, destination: Path) -> bytes:
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    with open(source, "rb", buffering=0) as reading, open(destination, "xb", buffering=0) as writing:
        while count := reading.readinto(block):
            digest.update(block[:count])
            writing.write(block[:count])
        os.fsync(writing.fileno())
    return digest.digest()


def _read_back(path: Path) -> bytes:
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    with open(path, "rb", buffering=0) as reading:
        os.posix_fadvise(reading.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while count := reading.readinto(block):
            digest.update(block[:count])
    return digest.digest()


_tree = TransferLarge()


def _row(peer: str, target: float, run_peer: Measure) -> Row:
    return Row(
        name="transfer-large",
        unit="s",
        better=Better.LOWER,
        target=target,
        peer=peer,
        run_ours=_tree.ours,
        run_peer=run_peer,
        around=_tree.tree,
    )


ROWS = (
    _row("bare copy+hash+fsync+uncached read-back loop, 2 threads", _TARGET_RATIO, _tree.peer),
    _row(transfer_peers.RCLONE, transfer_peers.TARGET_RATIO, _tree.rclone),
    _row(transfer_peers.RSYNC, transfer_peers.TARGET_RATIO, _tree.rsync),
    _row(transfer_peers.RCLONE_DURABLE, transfer_peers.DURABLE_TARGET_RATIO, _tree.rclone_durable),
    _row(transfer_peers.RSYNC_DURABLE, transfer_peers.DURABLE_TARGET_RATIO, _tree.rsync_durable),
)
