"""Hashing one huge file at the far end takes longer than a stall: it is seen to go on, and one that hangs is ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.jobs.progress import JobProgressMeter
from services.sync_engine.jobs.work_in_hand import WorkInHand
from services.sync_engine.transfer.transport import CopiedFile, TransferError, VerifyOutcome
from tests.faults.transfer.test_far_sides_fail import Opening, open_with, sshd
from tests.integration.transfer.carrying import Carrying
from tests.integration.transfer.far_servers import Sshd

__all__ = ["open_with", "sshd"]

STALL = 2.5
SAMPLE = 64 << 20


@pytest.fixture
def carrying(tmp_path: Path, sshd: Sshd, open_with: Opening) -> Iterator[Carrying]:
    source, destination = tmp_path / "run", tmp_path / "nas"
    source.mkdir()
    destination.mkdir()
    carrying = Carrying(source, destination, open_with(sshd.access, destination))
    carrying.run.mkdir(parents=True)
    huge = carrying.run / "huge"
    # Sparse, and read in full: so large that this machine hashes it for about two stalls.
    huge.touch()
    os.truncate(huge, SAMPLE)
    began = time.monotonic()
    subprocess.run(["sha256sum", huge], stdout=subprocess.DEVNULL, check=True)
    os.truncate(huge, round(SAMPLE * 2 * STALL / (time.monotonic() - began)))
    yield carrying


async def watched(carrying: Carrying, work: Callable[[], VerifyOutcome]) -> VerifyOutcome:
    threads = WorkThreads("test")
    try:
        meter = JobProgressMeter(lambda: None)
        return await WorkInHand(threads, STALL).do("job", carrying.control, meter, work)
    finally:
        threads.close()


def verify(carrying: Carrying) -> Callable[[], VerifyOutcome]:
    expected = [CopiedFile(b"huge", (carrying.run / "huge").stat().st_size, 0, 0, 0, "0" * 64)]
    return lambda: carrying.verify(expected)


@pytest.mark.slow
async def test_a_huge_file_is_hashed_to_its_end(carrying: Carrying) -> None:
    outcome = await watched(carrying, verify(carrying))
    assert (outcome.hashed, outcome.differing) == (1, (b"huge",))


@pytest.mark.slow
@pytest.mark.parametrize("open_with", ["rsync_ssh"], indirect=True)
async def test_a_far_host_that_stops_reading_is_ended(carrying: Carrying) -> None:
    hasher: list[int] = []

    async def stop_it() -> None:
        while not hasher:
            hasher.extend(_hashing_in(carrying.run))
            await asyncio.sleep(0.01)
        os.kill(hasher[0], signal.SIGSTOP)

    stopping = asyncio.create_task(stop_it())
    try:
        with pytest.raises(TransferError, match="not a byte moved"):
            await watched(carrying, verify(carrying))
    finally:
        await stopping
        for process in _hashing_in(carrying.run):
            os.kill(process, signal.SIGKILL)


def _hashing_in(folder: Path) -> list[int]:
    """Those that hash in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_text() == "sha256sum\n" and (process / "cwd").readlink() == folder:
                found.append(int(process.name))
    return found
