"""A run whose files change, grow or vanish while they are carried: noticed, named, and the others go on (SPEC §4)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from services.sync_engine.transfer.bandwidth import UNLIMITED
from services.sync_engine.transfer.block_stream import BLOCK_BYTES
from services.sync_engine.transfer.far_side import FarPlace
from services.sync_engine.transfer.mounted import MountedTransport
from services.sync_engine.transfer.rclone_place import RclonePlace
from services.sync_engine.transfer.rclone_remote import RcloneRemote
from services.sync_engine.transfer.remote_transport import RemoteTransport
from services.sync_engine.transfer.rsync_far import RsyncPlace
from services.sync_engine.transfer.source_tree import scan_run
from services.sync_engine.transfer.tools import RCLONE, RSYNC, SSH, Toolbox
from services.sync_engine.transfer.transport import CopiedFile, FailureKind, ProgressPhase, TransferError
from tests.integration.transfer.carrying import TARGET, Carrying, Recorder, tree, write
from tests.integration.transfer.far_servers import Sshd, running_sshd

TOOLS = Toolbox((RSYNC, SSH, RCLONE))


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("far") / "sshd") as running:
        yield running


@pytest.fixture(params=["mounted", "rsync_ssh", "rclone"])
def carrying(request: pytest.FixtureRequest, tmp_path: Path, sshd: Sshd) -> Iterator[Carrying]:
    """A run, an empty destination and a job between them, by each transport."""
    carrying = opened(request.param, tmp_path, sshd)
    yield carrying
    assert carrying.progress.untrue == []


def opened(transport: str, tmp_path: Path, sshd: Sshd) -> Carrying:
    source, destination = tmp_path / "run", tmp_path / "nas"
    source.mkdir()
    destination.mkdir()
    match transport:
        case "mounted":
            return Carrying(source, destination, MountedTransport(destination))
        case "rsync_ssh":
            far: FarPlace = RsyncPlace(sshd.access, str(destination), tools=TOOLS, bandwidth=UNLIMITED)
        case _:
            config = tmp_path / "rclone.conf"
            config.write_text(f"[far]\ntype = alias\nremote = {destination}\n")
            remote = RcloneRemote("far", "", config)
            far = RclonePlace(remote, tools=TOOLS, bandwidth=UNLIMITED)
    return Carrying(source, destination, RemoteTransport(far, max_stream_bytes=1 << 30))


sizes = pytest.mark.parametrize(
    ("carrying", "size"),
    [("mounted", 1000), ("mounted", BLOCK_BYTES + 10), ("rsync_ssh", 1000), ("rclone", BLOCK_BYTES + 10)],
    indirect=["carrying"],
)
only_mounted = pytest.mark.parametrize("carrying", ["mounted"], indirect=True)


def copy_what_was_scanned(carrying: Carrying, change: Callable[[], None]) -> TransferError:
    """The change comes after the scan and before the copy."""
    entries = scan_run(carrying.source)
    change()
    with pytest.raises(TransferError) as error:
        carrying.transport.copy(
            carrying.source,
            entries,
            target=TARGET,
            job_id="job",
            attempt=1,
            landed=(),
            before_landing=carrying.batches.append,
            control=carrying.control,
            progress=carrying.progress,
        )
    return error.value


def rewrite(place: Path, content: bytes) -> Callable[[], None]:
    def change() -> None:
        before = place.stat()
        place.write_bytes(content)
        # An old modification time hides nothing: the change time can't be set.
        os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))

    return change


def replace(place: Path, content: bytes) -> Callable[[], None]:
    def change() -> None:
        before = place.stat()
        other = place.with_name("other")
        other.write_bytes(content)
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.rename(place)

    return change


def link_instead(place: Path) -> Callable[[], None]:
    def change() -> None:
        place.unlink()
        place.symlink_to("b")

    return change


@sizes
@pytest.mark.parametrize("how", ["same size", "grown", "shrunk", "emptied", "replaced", "link"])
def test_a_changed_file_is_named_and_the_others_land(carrying: Carrying, how: str, size: int) -> None:
    write(carrying.source, b"a", b"x" * size)
    write(carrying.source, b"b", b"stays")
    place = carrying.source / "a"
    change = {
        "same size": rewrite(place, b"y" * size),
        "grown": rewrite(place, b"x" * (size + 1)),
        "shrunk": rewrite(place, b"x" * (size - 1)),
        "emptied": rewrite(place, b""),
        "replaced": replace(place, b"y" * size),
        "link": link_instead(place),
    }[how]
    changed = copy_what_was_scanned(carrying, change)
    assert changed.kind is FailureKind.SOURCE_CHANGED
    assert changed.paths == (b"a",)
    assert tree(carrying.run) == {b"b": b"stays"}


@sizes
def test_a_vanished_file_is_named(carrying: Carrying, size: int) -> None:
    write(carrying.source, b"a", b"x" * size)
    vanished = copy_what_was_scanned(carrying, (carrying.source / "a").unlink)
    assert vanished.kind is FailureKind.LOCAL_FILE_VANISHED
    assert vanished.paths == (b"a",)
    assert "No such file" in vanished.message


@pytest.mark.parametrize("carrying", ["mounted", "rsync_ssh"], indirect=True)
def test_a_symlink_that_points_elsewhere_now(carrying: Carrying) -> None:
    write(carrying.source, b"a", b"x")
    link = carrying.source / "link"
    link.symlink_to("a")

    def change() -> None:
        link.unlink()
        link.symlink_to("b")

    assert copy_what_was_scanned(carrying, change).kind is FailureKind.SOURCE_CHANGED


def test_the_gravest_kind_is_told_and_every_path(carrying: Carrying) -> None:
    for name in (b"a", b"b", b"c", b"d"):
        write(carrying.source, name, b"x")

    def change() -> None:
        rewrite(carrying.source / "a", b"y")()
        (carrying.source / "c").unlink()

    error = copy_what_was_scanned(carrying, change)
    assert error.kind is FailureKind.LOCAL_FILE_VANISHED
    assert error.paths == (b"c", b"a")
    assert "a source_changed" in error.message
    assert tree(carrying.run) == {b"b": b"x", b"d": b"x"}


class _ChangesInTheMiddle(Recorder):
    """Runs something when the first block of a file has been written."""

    def __init__(self, change: Callable[[], None]) -> None:
        super().__init__()
        self._change: Callable[[], None] | None = change

    def advance(self, files: int, nbytes: int, current: bytes) -> None:
        super().advance(files, nbytes, current)
        change, self._change = self._change, None
        if change is not None and self.phases[-1][0] is ProgressPhase.COPYING:
            change()


def append(place: Path) -> None:
    with open(place, "ab") as stream:
        stream.write(b"more")


def overwrite_begin(place: Path) -> None:
    with open(place, "r+b") as stream:
        stream.write(b"y")


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (append, {FailureKind.SOURCE_CHANGED}),
        (overwrite_begin, {FailureKind.SOURCE_CHANGED}),
        (lambda place: os.truncate(place, 5), {FailureKind.SOURCE_CHANGED}),
        (lambda place: replace(place, b"y")(), {FailureKind.SOURCE_CHANGED}),
        # Read to its end through what was opened, or not.
        (os.unlink, {FailureKind.SOURCE_CHANGED, FailureKind.LOCAL_FILE_VANISHED}),
    ],
)
def test_a_large_file_that_changes_while_it_is_read(
    carrying: Carrying, change: Callable[[Path], None], kinds: set[FailureKind]
) -> None:
    write(carrying.source, b"large", os.urandom(4 * BLOCK_BYTES))
    carrying.progress = _ChangesInTheMiddle(lambda: change(carrying.source / "large"))
    with pytest.raises(TransferError) as error:
        carrying.copy()
    assert error.value.kind in kinds
    assert error.value.paths == (b"large",)
    assert tree(carrying.run) == {}
    assert os.listdir(carrying.destination / ".labferry-incoming") == []


@pytest.mark.parametrize("carrying", ["rsync_ssh", "rclone"], indirect=True)
def test_what_is_sent_again_because_another_file_shrank_counts_once(carrying: Carrying) -> None:
    for name in (b"a", b"b", b"c"):
        write(carrying.source, name, os.urandom(4 * BLOCK_BYTES))
    carrying.progress = _ChangesInTheMiddle(lambda: os.truncate(carrying.source / "c", 5))
    with pytest.raises(TransferError) as error:
        carrying.copy()
    assert (error.value.kind, error.value.paths) == (FailureKind.SOURCE_CHANGED, (b"c",))
    assert tree(carrying.run).keys() == {b"a", b"b"}
    assert carrying.progress.bytes >= 8 * BLOCK_BYTES


@only_mounted
def test_what_failed_is_sent_when_the_run_has_settled(carrying: Carrying, tmp_path: Path) -> None:
    for number in range(20):
        write(carrying.source, b"%02d" % number, b"x")
    write(carrying.source, b"large", os.urandom(2 * BLOCK_BYTES))
    carrying.progress = _ChangesInTheMiddle(lambda: append(carrying.source / "large"))
    with pytest.raises(TransferError):
        carrying.copy()
    carrying.progress = Recorder()
    copied = carrying.copy()
    assert tree(carrying.run) == tree(carrying.source)
    assert carrying.verify(copied).proven
    sent: list[bytes] = [file.path for batch in carrying.batches for file in batch]
    assert len(sent) == len(set(sent))


@only_mounted
def test_two_jobs_share_one_transport(carrying: Carrying, tmp_path: Path) -> None:
    other = Carrying(tmp_path / "run2", carrying.destination, carrying.transport, job_id="other")
    write(carrying.source, b"a", b"x")
    write(other.source, b"a", b"x")

    def in_between(batch: Sequence[CopiedFile]) -> None:
        other.copy()

    # The other job's file has the name first; the same content is accepted as it is.
    copied = carrying.copy(in_between)
    assert len(other.batches) == 1
    assert tree(carrying.run) == {b"a": b"x"}
    assert carrying.verify(copied).proven
