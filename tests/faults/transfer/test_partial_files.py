"""A large file that is at the far end in part: rsync goes on with it, and the stall watch knows what that takes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path

import pytest

from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.jobs.progress import JobProgressMeter
from services.sync_engine.jobs.work_in_hand import WorkInHand
from services.sync_engine.transfer.bandwidth import UNLIMITED, Bandwidth
from services.sync_engine.transfer.incoming import INCOMING
from services.sync_engine.transfer.remote_transport import RemoteTransport
from services.sync_engine.transfer.rsync_far import RsyncPlace
from services.sync_engine.transfer.transport import CopiedFile, ProgressPhase, TransferError
from tests.faults.transfer.test_far_sides_fail import RSYNC_TOOLS, far_shell
from tests.integration.transfer.carrying import Carrying, Recorder, tree, write
from tests.integration.transfer.far_servers import Sshd, running_sshd

MIB = 1 << 20
STALL = 2.0
# What ssh and the two rsyncs hold between what one says and the other has written.
IN_FLIGHT = 4 * MIB
# That much may be read for four seconds.
HELD = 40 * MIB
# What the far rsync does for long without a word is done by none: it is stopped before it begins.
SHELL = """case $SSH_ORIGINAL_COMMAND in rsync*)
    [ ! -e {folder}/hold ] || {{ echo $$ > {folder}/new; mv {folder}/new {folder}/held; kill -STOP $$; }} ;;
esac
exec sh -c "$SSH_ORIGINAL_COMMAND"
"""


class Course(Recorder):
    """Tells the stall watch, and notes how much more was told than is at the destination."""

    def __init__(self, destination: Path) -> None:
        super().__init__()
        self.meter = JobProgressMeter(lambda: None)
        self.ahead = 0
        self._destination = destination

    def begin(self, phase: ProgressPhase, files_total: int, bytes_total: int) -> None:
        super().begin(phase, files_total, bytes_total)
        self.meter.begin(phase, files_total, bytes_total)

    def advance(self, files: int, nbytes: int, current: bytes) -> None:
        super().advance(files, nbytes, current)
        self.meter.advance(files, nbytes, current)
        there = sum(len(content or b"") for content in tree(self._destination).values())
        self.ahead = max(self.ahead, self.bytes - there)


class SlowAfter(Bandwidth):
    """8 MiB/s until so much was told, then 6 MiB/s."""

    def __init__(self, progress: Recorder, nbytes: int) -> None:
        super().__init__(upload_mbps=1)
        object.__setattr__(self, "progress", progress)
        object.__setattr__(self, "nbytes", nbytes)

    progress: Recorder
    nbytes: int

    def kib_per_second(self, local: datetime) -> int | None:
        return 8192 if self.progress.bytes < self.nbytes else 6144


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    shell = far_shell(tmp_path, SHELL.format(folder=tmp_path))
    with running_sshd(tmp_path / "sshd", f"ForceCommand {shell}") as running:
        yield running


def carrying(folder: Path, sshd: Sshd, bandwidth: Bandwidth = UNLIMITED, progress: Recorder | None = None) -> Carrying:
    (folder / "nas").mkdir()
    place = RsyncPlace(sshd.access, str(folder / "nas"), tools=RSYNC_TOOLS, bandwidth=bandwidth)
    transport = RemoteTransport(place, max_stream_bytes=1 << 30)
    return Carrying(folder / "run", folder / "nas", transport, progress=progress or Recorder())


async def watched(job: Carrying, meter: JobProgressMeter, stall: float = STALL) -> list[CopiedFile]:
    threads = WorkThreads("test")
    try:
        return list(await WorkInHand(threads, stall).do("job", job.control, meter, job.copy))
    finally:
        threads.close()


@pytest.mark.slow
async def test_progress_is_true_when_the_limit_changes_in_a_large_file(tmp_path: Path, sshd: Sshd) -> None:
    progress = Course(tmp_path / "nas")
    job = carrying(tmp_path, sshd, SlowAfter(progress, 4 * MIB), progress)
    write(job.source, b"large", os.urandom(40 * MIB))
    copied = await watched(job, progress.meter, stall=5 * STALL)
    assert progress.ahead < IN_FLIGHT
    assert progress.bytes == 40 * MIB
    assert job.verify(copied).proven


@asynccontextmanager
async def held_back(
    folder: Path, sshd: Sshd, held: int
) -> AsyncIterator[tuple[Carrying, asyncio.Task[list[CopiedFile]], int]]:
    """A job of which so many bytes of a larger file are there, whose far rsync has been stopped; and its process."""
    job = carrying(folder, sshd)
    content = os.urandom(held + MIB)
    write(job.source, b"folder/large", content)
    if held:
        write(job.destination, INCOMING + b"/job-partial/large", content[:held])
    (folder / "hold").touch()
    copying = asyncio.create_task(watched(job, JobProgressMeter(lambda: None)))
    while not (folder / "held").exists():
        await asyncio.wait({copying}, timeout=0.01)
        assert not copying.done()
    process = int((folder / "held").read_text())
    try:
        yield job, copying, process
    finally:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)
        await asyncio.wait({copying})


@pytest.mark.slow
async def test_a_partial_file_may_be_read_for_longer_than_a_stall(tmp_path: Path, sshd: Sshd) -> None:
    async with held_back(tmp_path, sshd, HELD) as (job, copying, process):
        await asyncio.wait({copying}, timeout=1.5 * STALL)
        assert not copying.done()
        os.kill(process, signal.SIGCONT)
        copied = await copying
        assert job.progress.bytes == HELD + MIB
        assert job.verify(copied).proven


@pytest.mark.slow
@pytest.mark.parametrize("held", [0, HELD // 2])
async def test_a_far_rsync_that_never_goes_on_is_ended(tmp_path: Path, sshd: Sshd, held: int) -> None:
    began = time.monotonic()
    async with held_back(tmp_path, sshd, held) as (_, copying, _process):
        with pytest.raises(TransferError, match="not a byte moved"):
            await copying
        assert time.monotonic() - began < 4 * STALL + held / (10 * MIB)
