"""Many small files and a large one through every transport, in a process of its own whose memory is looked at.

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

from bench.carry import Carried, CarrySpec
from tests.integration.transfer.far_servers import Sshd, running_sshd

FULL = bool(os.environ.get("LABFERRY_FULL_SIZES"))
MANY = {"mounted": 10_000, "rclone": 1_200, "rsync_ssh": 3_000}
LARGE_BYTES = (4 << 30) if FULL else (5 << 28)
# What a file costs in memory, beside what a process needs at all: its name, size and hash, and never its content.
MOST_BYTES_A_FILE = 4096
MOST_MIB = 150


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
@pytest.mark.parametrize("transport", MANY)
def test_many_small_files(tmp_path: Path, sshd: Sshd, transport: str) -> None:
    count = 100_000 if FULL else MANY[transport]
    for number in range(count):
        folder = tmp_path / "run" / f"position{number // 1000}"
        if number % 1000 == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:06}.tif").write_bytes(b"%d" % number)
    cost = carried(tmp_path, transport, sshd)
    assert cost.files == count
    assert max(cost.peak_mib, cost.tool_peak_mib) < MOST_MIB + count * MOST_BYTES_A_FILE / (1 << 20)


@pytest.mark.slow
@pytest.mark.parametrize("transport", MANY if FULL else ["mounted"])
def test_a_large_file(tmp_path: Path, sshd: Sshd, transport: str) -> None:
    (tmp_path / "run").mkdir()
    with open(tmp_path / "run" / "large.ome.tif", "wb") as large:
        # Sparse here, so that making it costs nothing; every byte of it travels.
        large.truncate(LARGE_BYTES)
    cost = carried(tmp_path, transport, sshd)
    assert cost.files == 1
    assert max(cost.peak_mib, cost.tool_peak_mib) < MOST_MIB
