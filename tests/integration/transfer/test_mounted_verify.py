"""Reading back what a mounted destination holds: what is wrong is named, and what can't be checked is no pass."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.sync_engine.transfer.block_stream import BLOCK_BYTES
from services.sync_engine.transfer.mounted import MountedTransport
from services.sync_engine.transfer.transfer_control import StopReason, TransferStoppedError
from services.sync_engine.transfer.transport import (
    EntryKind,
    EvidenceGrade,
    FailureKind,
    TransferError,
)
from services.sync_engine.transfer.uncached_read import hash_uncached
from tests.integration.transfer.carrying import TARGET, Carrying, write

SIZES = {b"small.bin": 1000, b"folder/empty.bin": 0, b"large.bin": BLOCK_BYTES + 12345}


@pytest.fixture
def carried(carrying: Carrying) -> Carrying:
    for name, size in SIZES.items():
        write(carrying.source, name, os.urandom(size))
    (carrying.source / "link").symlink_to("small.bin")
    return carrying


def test_everything_right_is_proven_with_evidence(carried: Carrying) -> None:
    copied = carried.copy()
    outcome = carried.verify(copied)
    assert outcome.proven
    assert (outcome.expected, outcome.hashed, outcome.matched) == (3, 3, 3)
    assert (outcome.missing, outcome.differing, outcome.unexpected) == ((), (), ())
    assert (outcome.method, outcome.grade, outcome.host) == ("uncached_read", EvidenceGrade.E4, socket.gethostname())
    assert outcome.note == ""
    assert {one.path: (one.size, one.sha256, one.kind) for one in outcome.evidence} == {
        file.path: (file.size, file.sha256, file.kind) for file in copied
    }
    assert {one.grade for one in outcome.evidence} == {EvidenceGrade.E4}


@pytest.mark.parametrize("name", ["small.bin", "large.bin"])
def test_one_corrupted_byte_is_found(carried: Carrying, name: str) -> None:
    copied = carried.copy()
    place = carried.run / name
    with open(place, "r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last[0] ^ 1]))
    outcome = carried.verify(copied)
    assert not outcome.proven
    assert outcome.differing == (name.encode(),)
    assert (outcome.expected, outcome.hashed, outcome.matched) == (3, 3, 2)


def test_missing_differing_and_unexpected_are_told_apart(carried: Carrying) -> None:
    copied = carried.copy()
    (carried.run / "small.bin").unlink()
    write(carried.run, b"large.bin", b"short")
    (carried.run / "link").unlink()
    (carried.run / "link").symlink_to("large.bin")
    write(carried.run, b"folder/new\nfile", b"?")
    write(carried.run, b".exlab-wizard/creation.json", b"{}")
    outcome = carried.verify(copied)
    assert not outcome.proven
    assert outcome.missing == (b"small.bin",)
    assert outcome.differing == (b"large.bin", b"link")
    assert outcome.unexpected == (b"folder/new\nfile",)
    assert (outcome.expected, outcome.hashed, outcome.matched) == (3, 2, 1)


@pytest.mark.parametrize(("name", "by"), [("small.bin", 1), ("small.bin", -1), ("large.bin", 7), ("empty.bin", 1)])
def test_a_file_of_another_length_differs(carried: Carrying, name: str, by: int) -> None:
    write(carried.source, b"empty.bin", b"")
    copied = carried.copy()
    place = carried.run / name
    length = place.stat().st_size + by
    os.truncate(place, length)
    outcome = carried.verify(copied)
    assert outcome.differing == (name.encode(),)
    for evidence in (one for one in outcome.evidence if one.kind is EntryKind.FILE):
        content = (carried.run / os.fsdecode(evidence.path)).read_bytes()
        assert (evidence.size, evidence.sha256) == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("instead", ["folder", "symlink", "pipe"])
def test_another_thing_in_a_files_place_differs(carried: Carrying, instead: str) -> None:
    copied = carried.copy()
    place = carried.run / "small.bin"
    place.rename(carried.run / "aside.bin")
    if instead == "folder":
        place.mkdir()
    elif instead == "symlink":
        place.symlink_to("aside.bin")
    else:
        os.mkfifo(place)
    assert carried.verify(copied).differing == (b"small.bin",)


def test_a_file_behind_a_folder_that_became_a_symlink_is_missing(carried: Carrying, tmp_path: Path) -> None:
    copied = carried.copy()
    (carried.run / "folder").rename(tmp_path / "elsewhere")
    (carried.run / "folder").symlink_to(tmp_path / "elsewhere")
    assert carried.verify(copied).missing == (b"folder/empty.bin",)


def test_a_run_that_is_not_there_is_missing_whole(carried: Carrying) -> None:
    copied = carried.copy()
    carried.run.rename(carried.run.with_name("gone"))
    outcome = carried.verify(copied)
    assert len(outcome.missing) == 4
    assert (outcome.hashed, outcome.matched, outcome.proven) == (0, 0, False)


def test_a_destination_that_is_not_there_is_an_error_not_a_result(carried: Carrying) -> None:
    copied = carried.copy()
    carried.destination.rename(carried.destination.with_name("unmounted"))
    with pytest.raises(TransferError) as error:
        carried.verify(copied)
    assert error.value.kind is FailureKind.NETWORK


def test_a_stop_ends_it(carried: Carrying) -> None:
    copied = carried.copy()
    carried.control.stop(StopReason.ENGINE_STOPPING)
    with pytest.raises(TransferStoppedError):
        carried.verify(copied)


def _cached_pages(path: Path) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    size = path.stat().st_size
    with open(path, "r+b") as stream, mmap.mmap(stream.fileno(), size) as mapped:
        pages = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE
        resident = (ctypes.c_ubyte * pages)()
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), resident) == 0
        cached = sum(page & 1 for page in resident)
        del address
    return cached


@pytest.mark.parametrize("size", [100_000, 3 * BLOCK_BYTES])
def test_the_page_cache_is_dropped_before_the_first_byte_is_read(tmp_path: Path, size: int) -> None:
    """A file of which nothing is in the cache when the read begins can only come from behind it."""
    path = tmp_path / "file"
    with open(path, "wb") as stream:
        stream.write(os.urandom(size))
        stream.flush()
        os.fsync(stream.fileno())
    path.read_bytes()
    assert _cached_pages(path) == (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    assert _cached_pages(path) == 0
    folder = os.open(tmp_path, os.O_RDONLY)
    reads_before = _bytes_read_from_disk()
    hash_uncached(folder, b"file", size)
    hash_uncached(folder, b"file", size)
    os.close(folder)
    assert _bytes_read_from_disk() - reads_before >= 2 * size


def test_a_large_file_that_became_much_longer_is_not_read_to_its_end(tmp_path: Path) -> None:
    size = BLOCK_BYTES
    (tmp_path / "file").write_bytes(os.urandom(6 * BLOCK_BYTES))
    folder = os.open(tmp_path, os.O_RDONLY)
    read = hash_uncached(folder, b"file", size)
    os.close(folder)
    assert size < read.size <= 2 * BLOCK_BYTES


def _bytes_read_from_disk() -> int:
    for line in Path("/proc/self/io").read_text().splitlines():
        name, _, value = line.partition(": ")
        if name == "read_bytes":
            return int(value)
    raise AssertionError("the kernel counts no reads")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "memory"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_memory_file_system_is_noted(carrying: Carrying, memory: Path) -> None:
    write(carrying.source, b"a", b"x")
    carrying.destination = memory
    carrying.transport = MountedTransport(memory)
    outcome = carrying.verify(carrying.copy())
    assert outcome.proven
    assert outcome.note == "memory"


def test_links_alone_prove_nothing(carrying: Carrying) -> None:
    (carrying.source / "link").symlink_to("nowhere")
    copied = carrying.copy()
    assert [file.kind for file in copied] == [EntryKind.SYMLINK]
    outcome = carrying.transport.verify(TARGET, copied, control=carrying.control, progress=carrying.progress)
    assert (outcome.expected, outcome.missing, outcome.proven) == (0, (), False)
