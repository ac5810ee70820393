"""Large files arrive and are proven whether their bytes pass the cache or not, where odd portions are refused too."""

from __future__ import annotations

import errno
import fcntl
import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from services.sync_engine.transfer import direct_io
from services.sync_engine.transfer.bandwidth import BandwidthBrake
from services.sync_engine.transfer.block_stream import BLOCK_BYTES
from services.sync_engine.transfer.transport import FailureKind, TransferError
from tests.integration.transfer.carrying import Carrying, tree, write

SIZES = (BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES - 512, 2 * BLOCK_BYTES + 4096, 3 * BLOCK_BYTES + 12_345)


@pytest.fixture(params=["past the cache", "through the cache"])
def way(request: pytest.FixtureRequest, carrying: Carrying, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_io, "is_ext4_or_xfs", lambda descriptor: request.param == "past the cache")


def is_direct(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)


def refusing_odd(call: Callable[..., int], alignment: int, size_of: Callable[[Any], int]) -> Callable[[int, Any], int]:
    """As a disk with sectors of that size does it."""

    def refused(descriptor: int, what: Any) -> int:
        if is_direct(descriptor) and (size_of(what) % alignment or os.lseek(descriptor, 0, os.SEEK_CUR) % alignment):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return call(descriptor, what)

    return refused


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("portion", [BLOCK_BYTES, 1 << 20, 99_999])
@pytest.mark.parametrize("sector", [512, 16 * 1024, 2 * BLOCK_BYTES])
def test_every_size_in_every_portion_arrives_and_is_proven(
    carrying: Carrying, monkeypatch: pytest.MonkeyPatch, portion: int, sector: int
) -> None:
    monkeypatch.setattr(BandwidthBrake, "portion", lambda self, wanted: min(wanted, portion))
    monkeypatch.setattr(os, "write", refusing_odd(os.write, sector, len))
    monkeypatch.setattr(os, "readv", refusing_odd(os.readv, sector, lambda buffers: len(buffers[0])))
    for number, size in enumerate(SIZES):
        write(carrying.source, b"large%d" % number, random.Random(number).randbytes(size))
    copied = carrying.copy()
    assert tree(carrying.run) == tree(carrying.source)
    for number, size in enumerate(SIZES):
        there = (carrying.run / f"large{number}").stat()
        assert there.st_size == size
        assert there.st_blocks * 512 < size + (1 << 20), "no room is kept that the file doesn't need"
    outcome = carrying.verify(copied)
    assert outcome.proven and outcome.matched == len(SIZES)


@pytest.mark.usefixtures("way")
def test_a_byte_that_changed_at_the_destination_is_found(carrying: Carrying) -> None:
    write(carrying.source, b"large", random.Random(1).randbytes(2 * BLOCK_BYTES + 7))
    copied = carrying.copy()
    with open(carrying.run / "large", "r+b") as there:
        there.seek(BLOCK_BYTES + 5)
        there.write(bytes([255 - carrying.source.joinpath("large").read_bytes()[BLOCK_BYTES + 5]]))
        # Not synced: what is read is what the file holds, wherever that lies.
        there.flush()
        assert carrying.verify(copied).differing == (b"large",)


@pytest.mark.usefixtures("way")
def test_a_disk_that_fails_says_so(carrying: Carrying, monkeypatch: pytest.MonkeyPatch) -> None:
    write(carrying.source, b"large", bytes(BLOCK_BYTES))

    def broken(descriptor: int, what: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", broken)
    with pytest.raises(TransferError) as failure:
        carrying.copy()
    assert failure.value.kind is FailureKind.DESTINATION_FULL
