"""Many small files, many folders and a large file, in processes of their own whose memory is looked at.

`LABFERRY_FULL_SIZES=1` makes it 100,000 files and 4 GiB each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bench.carry import RUN, Carried, CarrySpec, peak_mib
from labferry.sync.v1 import sync_service_pb2
from tests.integration.sync_engine.running_engine import new_site, running_engine
from tests.integration.transfer.far_servers import Sshd, running_sshd

FULL = bool(os.environ.get("LABFERRY_FULL_SIZES"))
TRANSPORTS = ["mounted", "rsync_ssh", "rclone"]
LARGE_BYTES = (4 << 30) if FULL else (5 << 28)
# The fewer are several batches too, so that only what grows without end is seen.
FEW, FEW_FOLDERS = 5_000, 3_000
MORE = dict.fromkeys(TRANSPORTS, 100_000) if FULL else {"mounted": 100_000, "rsync_ssh": 10_000, "rclone": 10_000}
MORE_FOLDERS = 100_000 if FULL else 10_000
# Beside what a process needs at all. A list of the files' names, sizes and hashes alone would be more than the growth.
MOST_MIB = 150
MOST_GROWTH_MIB = 3
# Of a whole engine, whose memory moves by itself: less than a list of the 18,000 files more would take.
FEW_OF_ENGINE, MORE_OF_ENGINE = 2_000, 20_000
MOST_GROWTH_OF_ENGINE_MIB = 10


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("far") / "sshd") as running:
        yield running


def carried(folder: Path, transport: str, sshd: Sshd) -> Carried:
    destination = folder / "nas"
    destination.mkdir()
    spec = CarrySpec(str(folder / "run"), str(destination))
    if transport == "rclone":
        config = folder / "rclone.conf"
        config.write_text(f"[far]\ntype = alias\nremote = {destination}\n")
        spec = msgspec.structs.replace(spec, rclone=("far", "", str(config)))
    elif transport == "rsync_ssh":
        access = sshd.access
        spec = msgspec.structs.replace(
            spec, ssh=(access.target, str(access.key_path), access.port or 22, str(access.known_hosts))
        )
    done = subprocess.run(
        [sys.executable, "-m", "bench.carry", msgspec.json.encode(spec)],
        capture_output=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout, type=Carried)


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_more_files_need_no_more_memory(tmp_path: Path, sshd: Sshd, transport: str) -> None:
    peaks: list[float] = []
    for count in (FEW, MORE[transport]):
        place = tmp_path / str(count)
        fill(place / "run", count)
        cost = carried(place, transport, sshd)
        assert cost.files == count
        assert max(cost.peak_mib, cost.tool_peak_mib) < MOST_MIB
        peaks.append(cost.peak_mib)
    assert peaks[1] - peaks[0] < MOST_GROWTH_MIB


@pytest.mark.slow
async def test_an_engine_needs_no_more_memory_for_a_run_of_more_files() -> None:
    async with new_site() as site:
        site.equip()
        async with running_engine(site) as engine:
            peaks: list[float] = []
            for count in (FEW_OF_ENGINE, MORE_OF_ENGINE):
                run = site.make_run({}, leaf=f"Run_2026-04-17T14-{len(peaks):02}")
                fill(site.local(run), count)
                job = await engine.bring(run, patience=600)
                assert job.file_count == count
                peaks.append(peak_mib(engine.service.process.pid))
                evidence = engine.sync.ListEvidence(sync_service_pb2.ListEvidenceRequest(run=run))
                assert len([file async for file in evidence]) == count
            assert peak_mib(engine.service.process.pid) - peaks[0] < MOST_GROWTH_OF_ENGINE_MIB


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS if FULL else ["mounted"])
def test_more_folders_need_no_more_memory(tmp_path: Path, sshd: Sshd, transport: str) -> None:
    peaks: list[float] = []
    for count in (FEW_FOLDERS, MORE_FOLDERS):
        place = tmp_path / str(count)
        make_folders(place / "run", count)
        cost = carried(place, transport, sshd)
        there = sum(len(folders) for _, folders, _ in os.walk(place / "nas" / "project" / "Runs" / RUN))
        assert there == sum(len(folders) for _, folders, _ in os.walk(place / "run"))
        peaks.append(cost.peak_mib)
    assert peaks[1] - peaks[0] < MOST_GROWTH_MIB


def make_folders(run: Path, count: int) -> None:
    """One file, and folders: half of them empty ones side by side, the others deep in each other."""
    run.mkdir(parents=True)
    (run / "file").write_bytes(b"x")
    for number in range(0, count, 10):
        above = run / "nested" / f"position{number // 1000:03}" / f"{number:06}"
        (above / "channel00/time00/z00").mkdir(parents=True)
        for empty in range(6):
            (above.parent / f"empty position {number + empty:06}").mkdir()


def fill(run: Path, count: int) -> None:
    """Half of the files lie in folders of a thousand, the others in one."""
    for number in range(count):
        folder = run / (f"position{number // 1000}" if number % 2 else "all")
        if number % 1000 < 2:
            folder.mkdir(parents=True, exist_ok=True)
        (folder / f"image_t{number:06}_c00_z000.tif").write_bytes(b"%d" % number)


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS if FULL else ["mounted"])
def test_a_large_file(tmp_path: Path, sshd: Sshd, transport: str) -> None:
    (tmp_path / "run").mkdir()
    with open(tmp_path / "run" / "large.ome.tif", "wb") as large:
        # Sparse here, so that making it costs nothing; every byte of it travels.
        large.truncate(LARGE_BYTES)
    cost = carried(tmp_path, transport, sshd)
    assert cost.files == 1
    assert max(cost.peak_mib, cost.tool_peak_mib) < MOST_MIB
