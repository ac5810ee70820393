"""The second process for small files: what it brings is as what the engine brings, and it is never needed."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from services.sync_engine.transfer.bandwidth import Bandwidth
from services.sync_engine.transfer.incoming import INCOMING
from services.sync_engine.transfer.mounted import MountedTransport
from services.sync_engine.transfer.second_process import process as second_process
from services.sync_engine.transfer.second_process.process import SecondProcess
from services.sync_engine.transfer.source_tree import scan_run
from services.sync_engine.transfer.transfer_control import StopReason, TransferStoppedError
from services.sync_engine.transfer.transport import EntryKind, FailureKind, TransferError
from tests.integration.transfer.carrying import Carrying, tree, write
from tests.integration.transfer.second_process import (
    bytes_read_by,
    open_below,
    running_second_process,
    until_ready,
)

FILES = 600
FILE_BYTES = 5000
PATIENCE_SECONDS = 1.0
# Three lanes with a chunk each.
_MOST_IN_LANES = 3 * 64


@pytest.fixture
def second() -> Iterator[SecondProcess]:
    with running_second_process(fewest_files=8, patience_seconds=PATIENCE_SECONDS) as running:
        yield running


@pytest.fixture
def carrying(tmp_path: Path, second: SecondProcess) -> Carrying:
    source, destination = tmp_path / "run", tmp_path / "nas"
    source.mkdir()
    destination.mkdir()
    for number in range(FILES):
        write(source, b"folder%d/%04d.tif" % (number % 7, number), os.urandom(FILE_BYTES))
    return Carrying(source, destination, MountedTransport(destination, second=second))


def carried(carrying: Carrying) -> bool:
    """Whether all of it is there, told of and proven."""
    copied = carrying.copy()
    told = {file.path: file.sha256 for file in copied}
    held = {path: hashlib.sha256(content).hexdigest() for path, content in tree(carrying.source).items() if content}
    assert told == held
    assert tree(carrying.run) == tree(carrying.source)
    assert os.listdir(carrying.destination / os.fsdecode(INCOMING)) == []
    assert carrying.progress.untrue == []
    assert (carrying.progress.files, carrying.progress.bytes) == (FILES, FILES * FILE_BYTES)
    outcome = carrying.verify(copied)
    assert carrying.progress.untrue == []
    assert (carrying.progress.files, carrying.progress.bytes) == (FILES, FILES * FILE_BYTES)
    return outcome.proven and outcome.matched == FILES


def test_it_copies_and_reads_back_its_part(carrying: Carrying, second: SecondProcess) -> None:
    process = until_ready(second)
    before = bytes_read_by(process)
    copied = carrying.copy()
    between = bytes_read_by(process)
    assert between - before > 100 * FILE_BYTES
    assert carrying.verify(copied).proven
    assert bytes_read_by(process) - between > 100 * FILE_BYTES


def test_it_holds_nothing_open_afterwards(carrying: Carrying, second: SecondProcess, tmp_path: Path) -> None:
    process = until_ready(second)
    copied = carrying.copy()
    assert open_below(process, tmp_path) == []
    carrying.verify(copied)
    assert open_below(process, tmp_path) == []


def test_what_is_found_wrong_is_told(carrying: Carrying) -> None:
    copied = carrying.copy()
    paths = [file.path for file in copied]
    spoiled, shorter, longer, gone, linked = paths[10:600:110][:5]
    places = {path: carrying.run / os.fsdecode(path) for path in paths}
    _flip_a_bit(places[spoiled])
    os.truncate(places[shorter], FILE_BYTES - 1)
    with places[longer].open("ab") as stream:
        stream.write(b"x")
    places[gone].unlink()
    places[linked].unlink()
    places[linked].symlink_to(places[paths[0]])
    outcome = carrying.verify(copied)
    assert outcome.differing == tuple(sorted((spoiled, shorter, longer, linked)))
    assert outcome.missing == (gone,)
    assert (outcome.expected, outcome.matched) == (FILES, FILES - 5)


def _flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[FILE_BYTES // 2] ^= 1
    file.write_bytes(content)
    os.sync()


def test_local_files_that_fail_are_named_and_the_others_land(carrying: Carrying) -> None:
    entries = scan_run(carrying.source)
    paths = [entry.path for entry in entries if entry.kind is EntryKind.FILE]
    vanished, changed = paths[100], paths[400]
    (carrying.source / os.fsdecode(vanished)).unlink()
    (carrying.source / os.fsdecode(changed)).write_bytes(b"changed")
    with pytest.raises(TransferError) as failure:
        carrying.transport.copy(
            carrying.source,
            entries,
            target=carrying.target,
            job_id="job",
            attempt=1,
            landed=(),
            before_landing=lambda batch: None,
            control=carrying.control,
            progress=carrying.progress,
        )
    assert failure.value.kind is FailureKind.LOCAL_FILE_VANISHED
    assert set(failure.value.paths) == {vanished, changed}
    landed = {path for path, content in tree(carrying.run).items() if content}
    assert landed == set(paths) - {vanished, changed}


def test_times_that_64_bits_do_not_hold_are_the_engines_own_work(carrying: Carrying) -> None:
    """tmpfs keeps any second; so does NTFS its own zero, in 1601."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(carrying.source)], check=True)
    try:
        for number in range(FILES):
            write(carrying.source, b"%04d.tif" % number, os.urandom(FILE_BYTES))
        os.utime(carrying.source / "0007.tif", (0, -11_644_473_600))
        os.utime(carrying.source / "0107.tif", (0, 30_000_000_000))
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(carrying.destination)], check=True)
        try:
            assert carried(carrying)
            assert (carrying.run / "0007.tif").stat().st_mtime == -11_644_473_600
        finally:
            subprocess.run(["umount", "--lazy", str(carrying.destination)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(carrying.source)], check=True)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_engine_does_what_it_leaves_undone(
    carrying: Carrying, second: SecondProcess, signal_number: signal.Signals
) -> None:
    process = until_ready(second)
    os.kill(process, signal_number)
    assert carried(carrying)
    assert second.process is None


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
def test_it_may_end_in_the_middle(carrying: Carrying, second: SecondProcess, signal_number: signal.Signals) -> None:
    process = until_ready(second)
    at_first, over = bytes_read_by(process), threading.Event()

    def strike() -> None:
        while bytes_read_by(process) < at_first + 20 * FILE_BYTES:
            if over.is_set():
                return
        os.kill(process, signal_number)

    striking = threading.Thread(target=strike)
    striking.start()
    try:
        assert carried(carrying)
    finally:
        over.set()
        striking.join()
    assert second.process is None


def test_a_copy_is_stopped_though_it_hangs(carrying: Carrying) -> None:
    with running_second_process(fewest_files=8, patience_seconds=3600) as second:
        carrying.transport = MountedTransport(carrying.destination, second=second)
        process = until_ready(second)
        os.kill(process, signal.SIGSTOP)

        def stop_when_only_its_chunks_are_left() -> None:
            while carrying.progress.files < FILES - _MOST_IN_LANES:
                pass
            carrying.control.stop(StopReason.PAUSED)

        stopping = threading.Thread(target=stop_when_only_its_chunks_are_left)
        stopping.start()
        with pytest.raises(TransferStoppedError):
            carrying.copy()
        stopping.join()
        assert second.process is None
    assert os.listdir(carrying.destination / os.fsdecode(INCOMING)) == []


def test_a_full_destination_is_told_as_without_it(carrying: Carrying, second: SecondProcess, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=300", "tmpfs", str(full)], check=True)
    try:
        carrying.destination = full
        words = []
        for transport in (MountedTransport(full, second=second), MountedTransport(full)):
            carrying.transport = transport
            with pytest.raises(TransferError) as failure:
                carrying.copy()
            assert failure.value.kind is FailureKind.DESTINATION_FULL
            words.append(failure.value.message.rpartition(":")[2])
        assert words[0] == words[1]
    finally:
        subprocess.run(["umount", "--lazy", str(full)], check=True)


def test_where_a_limit_may_come_it_is_not_asked_to_copy(carrying: Carrying, second: SecondProcess) -> None:
    carrying.transport = MountedTransport(carrying.destination, second=second, bandwidth=Bandwidth(upload_mbps=80_000))
    before = bytes_read_by(until_ready(second))
    carrying.copy()
    assert bytes_read_by(until_ready(second)) == before


def test_small_runs_start_none(carrying: Carrying) -> None:
    with closing(SecondProcess()) as second:
        carrying.transport = MountedTransport(carrying.destination, second=second)
        assert carried(carrying)
        assert second.process is None


@pytest.mark.parametrize("obstacle", ["no Python", "another version", "one processor"])
def test_without_one_the_engine_works_alone(
    carrying: Carrying, obstacle: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    match obstacle:
        case "no Python":
            monkeypatch.setattr(sys, "executable", "/nowhere/python")
        case "another version":
            monkeypatch.setattr(second_process, "LABFERRY_VERSION", "another")
        case "one processor":
            monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    with closing(SecondProcess(fewest_files=8)) as second:
        carrying.transport = MountedTransport(carrying.destination, second=second)
        assert carried(carrying)
        if obstacle == "another version":
            # Its own end, as soon as it has said which it is.
            while second.process is not None:
                second.is_ready()
        assert second.process is None
    told = [record.getMessage() for record in caplog.records]
    assert any("/nowhere/python" in line for line in told) == (obstacle == "no Python")


def test_it_is_started_again_but_not_at_once() -> None:
    now = 0.0
    with running_second_process(monotonic=lambda: now) as second:
        first = until_ready(second)
        os.kill(first, signal.SIGKILL)
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
        now = 59.0
        assert not second.is_ready()
        assert second.process is None
        now = 61.0
        assert until_ready(second) != first


def test_it_ends_with_the_engine_however_that_ends() -> None:
    engine = subprocess.Popen(
        [sys.executable, "-c", _ENGINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert engine.stdout is not None
    with closing(engine.stdout), os.fdopen(os.pidfd_open(int(engine.stdout.readline()))) as second:
        engine.kill()
        engine.wait()
        ended, _, _ = select.select([second], [], [], 30)
    assert ended


_ENGINE = """
from services.sync_engine.transfer.second_process.process import SecondProcess
second = SecondProcess()
while not second.is_ready():
    pass
print(second.process, flush=True)
input()
"""
