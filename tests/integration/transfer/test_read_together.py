"""Small files read back all at once: what the cache holds is no answer, and whatever can't be read so is read else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from services.sync_engine.transfer import chunk_reader, kernel_queue, read_together
from services.sync_engine.transfer.mounted import MountedTransport
from services.sync_engine.transfer.read_together import ReadTogether
from tests.integration.transfer.carrying import Carrying, write
from tests.integration.transfer.loop_disk import MAKE, LoopDisk, loop_disk

SIZES = (1, 511, 512, 4095, 4096, 4097, 20_480, 1 << 20)


THROUGH_ITS_JOURNAL = "ext4 with its data in the journal"


@pytest.fixture(params=[*MAKE, THROUGH_ITS_JOURNAL])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LoopDisk]:
    through_its_journal = request.param == THROUGH_ITS_JOURNAL
    kind, options = ("ext4", "loop,data=journal") if through_its_journal else (request.param, "loop")
    with loop_disk(kind, tmp_path, options) as made:
        yield made


@pytest.fixture(params=["as it is", "a few answers at a time", "not told", "no such call", "no room in the kernel"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    how: str = request.param
    monkeypatch.setattr(kernel_queue, "_idle", type(kernel_queue._idle)())
    if how == "a few answers at a time":
        monkeypatch.setattr(kernel_queue, "_LOOK", kernel_queue._Timespec(0, 0))
    if how == "not told":
        monkeypatch.setattr(read_together, "direct_alignment", lambda descriptor: 0)
    if how == "no such call":
        monkeypatch.setattr(kernel_queue, "_CALLS", None)
    if how == "no room in the kernel":
        monkeypatch.setattr(kernel_queue, "_call", lambda *arguments: -1)
    return how


@pytest.fixture
def on_the_disk(carrying: Carrying, disk: LoopDisk) -> Carrying:
    carrying.destination = disk.folder
    carrying.transport = MountedTransport(disk.folder)
    return carrying


@pytest.mark.usefixtures("way")
def test_what_rots_behind_a_warm_cache_is_found(on_the_disk: Carrying, disk: LoopDisk) -> None:
    contents = {b"file%d" % number: os.urandom(size) for number, size in enumerate((*SIZES[3:], *[9000] * 90))}
    for name, content in contents.items():
        write(on_the_disk.source, name, content)
    copied = on_the_disk.copy()
    assert on_the_disk.verify(copied).proven
    for name in (b"file2", b"file94"):
        # The file system sees nothing of it: whoever reads through the cache gets the sound bytes.
        disk.rot(contents[name][:512])
    read = {name: (on_the_disk.run / os.fsdecode(name)).read_bytes() for name in contents}
    outcome = on_the_disk.verify(copied)
    if disk.kind == "btrfs":
        # It keeps checksums of its own, and refuses to give what doesn't fit them.
        assert {one.path for one in outcome.unreadable} == {b"file2", b"file94"}
    assert (outcome.differing, outcome.missing) == ((b"file2", b"file94"), ())
    assert (outcome.expected, outcome.matched) == (len(contents), len(contents) - 2)
    assert read == contents


def test_one_warm_file_among_cold_ones_is_read_from_the_disk(on_the_disk: Carrying, disk: LoopDisk) -> None:
    contents = {b"file%02d" % number: os.urandom(100 if number % 2 else 3000) for number in range(60)}
    for name, content in contents.items():
        write(on_the_disk.source, name, content)
    copied = on_the_disk.copy()
    # What is in its journal alone isn't dropped.
    os.sync()
    for name in sorted(contents)[1:]:
        with open(on_the_disk.run / os.fsdecode(name), "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    disk.rot(contents[b"file00"])
    outcome = on_the_disk.verify(copied)
    assert outcome.differing == (b"file00",)


@pytest.mark.parametrize("disk", ["ext4", "xfs"], indirect=True)
def test_every_size_and_what_is_longer_or_shorter_than_it_should_be(disk: LoopDisk) -> None:
    contents = [os.urandom(size) for size in SIZES]
    for size, content in zip(SIZES, contents, strict=True):
        (disk.folder / str(size)).write_bytes(content)
    os.sync()
    reader = ReadTogether(len(SIZES), sum(SIZES))
    with ExitStack() as closing:
        opened = [os.open(disk.folder / str(size), os.O_RDONLY) for size in SIZES]
        for descriptor in opened:
            closing.callback(os.close, descriptor)
        signs: list[None] = []
        with reader.read(opened, SIZES, lambda: signs.append(None)) as read:
            assert signs
            assert [None if one is None else bytes(one) for one in read] == contents
        with reader.read(opened, [size - 1 for size in SIZES]) as read:
            assert all(one is not None and len(one) == size for one, size in zip(read, SIZES, strict=True))
        with reader.read(opened, [size + 1 for size in SIZES]) as read:
            assert read == [None] * len(SIZES)
        with pytest.raises(ValueError, match="larger"), reader.read(opened, [2 * size + 4096 for size in SIZES]):
            pass
        # Those are read as ever then, at whatever place and of whatever length.
        assert [os.pread(descriptor, 5, 3) for descriptor in opened] == [content[3:8] for content in contents]


def test_the_files_of_a_chunk_are_read_together(
    on_the_disk: Carrying, disk: LoopDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is a disk that does it well, nothing is read one by one."""
    one_by_one: list[int] = []
    monkeypatch.setattr(chunk_reader, "drop_cached", lambda descriptor, size: one_by_one.append(size))
    for number in range(150):
        write(on_the_disk.source, b"file%d" % number, b"x" * (number + 1))
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    (options,) = (mount[3] for mount in mounts if mount[1] == str(disk.folder))
    direct = disk.kind != "btrfs" and "data=journal" not in options
    assert on_the_disk.verify(on_the_disk.copy()).proven
    assert len(one_by_one) == (0 if direct else 150)


def test_one_of_them_that_is_no_file_is_told_as_ever(on_the_disk: Carrying) -> None:
    for number in range(10):
        write(on_the_disk.source, b"file%d" % number, b"x" * 5000)
    copied = on_the_disk.copy()
    (on_the_disk.run / "file3").unlink()
    (on_the_disk.run / "file3").mkdir()
    (on_the_disk.run / "file4").write_bytes(b"x" * 4999)
    (on_the_disk.run / "file5").write_bytes(b"x" * 5001)
    (on_the_disk.run / "file6").write_bytes(b"")
    (on_the_disk.run / "file7").unlink()
    outcome = on_the_disk.verify(copied)
    assert (outcome.differing, outcome.missing) == ((b"file3", b"file4", b"file5", b"file6"), (b"file7",))
    assert (outcome.expected, outcome.matched) == (10, 5)
