"""Small files that become durable at once: nobody waits for what others wrote, and a failed write is told of."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from services.sync_engine.transfer import durable_together, file_copy
from services.sync_engine.transfer.durable_together import MOST_WAITING_BYTES, make_durable
from services.sync_engine.transfer.transport import FailureKind, TransferError
from tests.faults.sync_engine.failing_disk import extents
from tests.integration.transfer.carrying import Carrying, write
from tests.integration.transfer.loop_disk import LoopDisk, loop_disk

COUNT = 20


@pytest.fixture(params=["ext4", "ext4 without a journal", "xfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LoopDisk]:
    with loop_disk(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def files(disk: LoopDisk) -> Iterator[list[int]]:
    descriptors = [os.open(disk.folder / str(number), os.O_WRONLY | os.O_CREAT, 0o600) for number in range(COUNT)]
    for descriptor in descriptors:
        os.write(descriptor, b"content")
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


class Syncs:
    """Counts the ways that were taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.whole = 0
        self.single = 0
        self.failure: OSError | None = None
        monkeypatch.setattr(durable_together, "sync_filesystem", self._sync_filesystem)
        monkeypatch.setattr(durable_together, "fsync_together", self._fsync_together)

    def _sync_filesystem(self, descriptor: int) -> None:
        self.whole += 1
        if self.failure is not None:
            raise self.failure

    def _fsync_together(self, descriptors: Sequence[int]) -> list[OSError | None]:
        self.single += len(descriptors)
        return [OSError(errno.ENOSPC, "full")] + [None] * (len(descriptors) - 1)


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests write beside this one."""
    monkeypatch.setattr(durable_together, "_waiting_bytes", lambda: 0)


@pytest.mark.usefixtures("calm")
def test_all_is_on_the_disk_when_it_returns(disk: LoopDisk) -> None:
    content = os.urandom(30_000)
    descriptors = [os.open(disk.folder / str(number), os.O_WRONLY | os.O_CREAT, 0o600) for number in range(COUNT)]
    for descriptor in descriptors:
        os.write(descriptor, content)
    said = make_durable(descriptors)
    with disk.as_after_a_power_cut() as seen:
        assert all((seen / str(number)).read_bytes() == content for number in range(COUNT))
    for descriptor in descriptors:
        os.close(descriptor)
    assert said == [None] * COUNT


@pytest.mark.usefixtures("calm")
def test_one_pass_of_the_disk_where_little_waits(files: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = Syncs(monkeypatch)
    make_durable(files)
    assert (syncs.whole, syncs.single) == (1, 1), "one file is asked too: an ext4 without a journal needs it"


def test_nobody_waits_for_what_another_program_wrote(files: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = Syncs(monkeypatch)
    monkeypatch.setattr(durable_together, "_waiting_bytes", lambda: MOST_WAITING_BYTES + 1)
    make_durable(files)
    assert (syncs.whole, syncs.single) == (0, COUNT)


def test_what_waits_is_known(files: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the system says is taken as it is; where it says nothing of it, each file is synced by itself."""
    syncs = Syncs(monkeypatch)
    said = tmp_path / "vmstat"
    monkeypatch.setattr(durable_together, "_VMSTAT", str(said))
    pages = MOST_WAITING_BYTES // os.sysconf("SC_PAGE_SIZE")
    for content, whole in (
        (f"nr_free_pages 9\nnr_dirty {pages - 5}\nnr_writeback 5\nnr_dirty_threshold 99999999\n", 1),
        (f"nr_free_pages 9\nnr_dirty {pages - 5}\nnr_writeback 6\n", 1),
        ("nr_free_pages 9\nnr_dirty 1\n", 1),
        (f"nr_dirty 0\nnr_writeback {pages}\n", 2),
    ):
        said.write_text(content)
        make_durable(files)
        assert syncs.whole == whole, content
    said.unlink()
    make_durable(files)
    assert syncs.whole == 2


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSYS, errno.EPERM])
def test_where_it_fails_or_may_not_be_asked_each_file_is(
    files: list[int], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = Syncs(monkeypatch)
    syncs.failure = OSError(number, "refused")
    said = make_durable(files)
    assert [error and error.errno for error in said] == [errno.ENOSPC] + [None] * (COUNT - 1)


@pytest.fixture
def thin(tmp_path: Path) -> Iterator[LoopDisk]:
    """A disk on storage that is about to run out."""
    base = tmp_path / "thin"
    base.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "none", str(base)], check=True)
    try:
        with loop_disk("ext4", base, nbytes=24 << 20) as made:
            yield made
    finally:
        subprocess.run(["umount", "--lazy", str(base)], check=True)


@pytest.mark.usefixtures("calm")
def test_what_another_program_could_not_write_is_no_failure_of_these(thin: LoopDisk, tmp_path: Path) -> None:
    with open(thin.image, "r+b") as image:
        os.posix_fallocate(image.fileno(), 0, thin.image.stat().st_size)
    other = os.open(thin.folder / "other", os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(other, os.urandom(1 << 20))
    os.fsync(other)
    for extent in extents(thin.folder / "other"):
        hole = ["--offset", str(extent.physical), "--length", str(extent.length)]
        subprocess.run(["fallocate", "--punch-hole", *hole, str(thin.image)], check=True)
    with open(thin.image.with_name("filler"), "wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))
    content = os.urandom(9000)
    descriptors = [os.open(thin.folder / str(number), os.O_WRONLY | os.O_CREAT, 0o600) for number in range(COUNT)]
    for descriptor in descriptors:
        os.write(descriptor, content)
    os.pwrite(other, os.urandom(4096), 1 << 19)
    said = make_durable(descriptors)
    with pytest.raises(OSError, match="No space left"):
        os.fsync(other)
    after = tmp_path / "after"
    after.mkdir()
    subprocess.run(["cp", str(thin.image), str(after / "image")], check=True)
    with LoopDisk("ext4", thin.folder, after / "image").as_after_a_power_cut() as seen:
        assert all((seen / str(number)).read_bytes() == content for number in range(COUNT))
    for descriptor in (other, *descriptors):
        os.close(descriptor)
    assert said == [None] * COUNT


@pytest.mark.parametrize(
    ("release", "tells"),
    [("5.7.19", False), ("5.8.0-1", True), ("6.1.0-13-amd64", True), ("4.18.0", False), ("x", False)],
)
def test_an_old_kernel_tells_of_no_failed_write(release: str, tells: bool) -> None:
    assert durable_together._kernel_tells(release) is tells


def test_a_few_files_are_not_worth_it(files: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = Syncs(monkeypatch)
    make_durable(files[:3])
    assert (syncs.whole, syncs.single) == (0, 3)


def test_a_disk_that_fails_fails_the_copy_with_the_file_s_name(
    carrying: Carrying, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(descriptors: Sequence[int]) -> list[OSError | None]:
        return [OSError(errno.EIO, os.strerror(errno.EIO)) if place == 2 else None for place in range(len(descriptors))]

    for number in range(5):
        write(carrying.source, b"file%d" % number, b"x")
    monkeypatch.setattr(file_copy, "make_durable", failing)
    with pytest.raises(TransferError, match=r"file2.*Input/output error") as failure:
        carrying.copy()
    assert failure.value.kind is FailureKind.NETWORK
    assert not list(carrying.run.rglob("file*")), "nothing has a name that isn't durable"
