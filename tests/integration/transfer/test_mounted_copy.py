"""Carrying a run to a mounted destination: every name, everything kept, nothing replaced, nothing sent twice (SPEC
§4).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.sync_engine.transfer.block_stream import BLOCK_BYTES
from services.sync_engine.transfer.incoming import INCOMING, incoming_folder
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl, TransferStoppedError
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EntryKind,
    FailureKind,
    ProgressPhase,
    TransferError,
)
from tests.integration.transfer.carrying import HOSTILE_NAMES, TARGET, Carrying, tree, write


def incoming(carrying: Carrying) -> list[str]:
    return os.listdir(os.path.join(carrying.destination, os.fsdecode(INCOMING)))


def test_hostile_names_arrive_unchanged(carrying: Carrying) -> None:
    for number, name in enumerate(HOSTILE_NAMES):
        write(carrying.source, name, b"%d" % number)
        write(carrying.source, b"folder " + name[:240] + b"/" + name, b"%d" % -number)
    copied = carrying.copy()
    assert tree(carrying.run) == tree(carrying.source)
    assert [file.path for file in copied] == sorted(path for path, content in tree(carrying.source).items() if content)
    assert carrying.verify(copied).proven
    assert incoming(carrying) == []


def test_content_times_empty_folders_and_links_are_kept(carrying: Carrying) -> None:
    write(carrying.source, b"a/data.bin", b"x" * 100, mtime_ns=1_234_567_890_987_654_321)
    write(carrying.source, b"a/empty.bin", b"")
    (carrying.source / "nothing" / "in" / "here").mkdir(parents=True)
    (carrying.source / "link").symlink_to("a/data.bin")
    (carrying.source / "a" / "up").symlink_to("../a")
    (carrying.source / "dangling").symlink_to("not there")
    os.utime(carrying.source / "link", ns=(5, 1_111_111_111), follow_symlinks=False)
    os.utime(carrying.source / "nothing" / "in", ns=(5, 999_999_999_999))
    os.utime(carrying.source / "a", ns=(5, 888_888_888_888))
    copied = {file.path: file for file in carrying.copy()}
    assert tree(carrying.run) == tree(carrying.source)
    assert (carrying.run / "a" / "data.bin").stat().st_mtime_ns == 1_234_567_890_987_654_321
    assert (carrying.run / "link").lstat().st_mtime_ns == 1_111_111_111
    assert (carrying.run / "nothing" / "in").stat().st_mtime_ns == 999_999_999_999
    assert (carrying.run / "a").stat().st_mtime_ns == 888_888_888_888
    assert copied[b"a/data.bin"].sha256 == hashlib.sha256(b"x" * 100).hexdigest()
    assert copied[b"a/empty.bin"].sha256 == hashlib.sha256(b"").hexdigest()
    assert copied[b"link"].kind is EntryKind.SYMLINK
    assert copied[b"link"].link_target == b"a/data.bin"
    status = (carrying.source / "a" / "data.bin").stat()
    assert (copied[b"a/data.bin"].inode, copied[b"a/data.bin"].ctime_ns) == (status.st_ino, status.st_ctime_ns)


@pytest.mark.parametrize("size", [BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES + 4097])
def test_large_files_around_the_block_size(carrying: Carrying, size: int) -> None:
    content = os.urandom(size)
    write(carrying.source, b"big.bin", content)
    [file] = carrying.copy()
    assert (carrying.run / "big.bin").read_bytes() == content
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    outcome = carrying.verify([file])
    assert outcome.proven
    assert carrying.progress.phases == [(ProgressPhase.COPYING, 1, size), (ProgressPhase.VERIFYING, 1, size)]
    assert (carrying.progress.files, carrying.progress.bytes) == (1, size)


def test_changing_files_of_the_cache_stay_behind_and_others_travel(carrying: Carrying) -> None:
    write(carrying.source, b".exlab-wizard/creation.json", b"{}")
    write(carrying.source, b".exlab-wizard/creation.json.lock", b"")
    write(carrying.source, b".exlab-wizard/wizard.pc.log", b"log")
    write(carrying.source, b".exlab-wizard/notes.txt", b"kept")
    write(carrying.source, b"data/creation.json", b"data")
    carrying.copy()
    assert tree(carrying.run) == {
        b".exlab-wizard": None,
        b".exlab-wizard/notes.txt": b"kept",
        b"data": None,
        b"data/creation.json": b"data",
    }


def test_batches_are_whole_before_they_land_and_land_after_the_log_has_them(carrying: Carrying) -> None:
    for number in range(600):
        write(carrying.source, b"%03d" % number, b"%d" % number)

    def look(batch: Sequence[CopiedFile]) -> None:
        assert 0 < len(batch) <= 256
        assert not any(os.path.lexists(os.path.join(os.fsencode(carrying.run), file.path)) for file in batch)

    carrying.copy(look)
    assert sorted(file.path for batch in carrying.batches for file in batch) == sorted(
        b"%03d" % number for number in range(600)
    )


def test_what_landed_is_not_sent_again(carrying: Carrying) -> None:
    for number in range(10):
        write(carrying.source, b"%d" % number, b"same")
    first = carrying.copy()
    inodes = {path: path.stat().st_ino for path in carrying.run.iterdir()}
    assert carrying.copy() == first
    assert len(carrying.batches) == 1
    assert carrying.progress.phases[-1] == (ProgressPhase.COPYING, 0, 0)
    assert {path: path.stat().st_ino for path in carrying.run.iterdir()} == inodes


def test_the_same_content_that_another_wrote_is_accepted_as_it_is(carrying: Carrying) -> None:
    write(carrying.source, b"a", b"same")
    (carrying.source / "link").symlink_to("a")
    write(carrying.run, b"a", b"same", mtime_ns=7_000_000_000)
    (carrying.run / "link").symlink_to("a")
    inode = (carrying.run / "a").stat().st_ino
    copied = carrying.copy()
    assert carrying.batches == []
    assert (carrying.run / "a").stat().st_ino == inode
    assert carrying.verify(copied).proven


def test_different_files_are_all_named_and_nothing_lands(carrying: Carrying) -> None:
    for name in (b"a", b"b", b"c", b"d", b"e", b"same size"):
        write(carrying.source, name, b"ours")
    write(carrying.run, b"b", b"theirs, longer")
    write(carrying.run, b"same size", b"OURS")
    (carrying.run / "c").mkdir()
    (carrying.run / "d").symlink_to("b")
    before = tree(carrying.run)
    with pytest.raises(TransferError) as refusal:
        carrying.copy()
    assert refusal.value.kind is FailureKind.DESTINATION_FILE_DIFFERS
    assert refusal.value.paths == (b"b", b"c", b"d", b"same size")
    assert tree(carrying.run) == before


def test_a_folder_behind_a_symlink_is_not_written_through(carrying: Carrying, tmp_path: Path) -> None:
    write(carrying.source, b"data/a", b"ours")
    (tmp_path / "elsewhere").mkdir()
    carrying.run.mkdir(parents=True)
    (carrying.run / "data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TransferError) as refusal:
        carrying.copy()
    assert refusal.value.kind is FailureKind.DESTINATION_FILE_DIFFERS
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_project_folder_that_is_a_symlink_is_not_written_through(carrying: Carrying, tmp_path: Path) -> None:
    write(carrying.source, b"a", b"ours")
    (tmp_path / "elsewhere").mkdir()
    (carrying.destination / TARGET.parts[0]).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TransferError) as refusal:
        carrying.copy()
    assert refusal.value.kind is FailureKind.DESTINATION_FILE_DIFFERS
    assert os.listdir(tmp_path / "elsewhere") == []


def test_this_jobs_own_unproven_copy_is_replaced_when_the_source_changed(carrying: Carrying) -> None:
    write(carrying.source, b"a", b"first")
    write(carrying.source, b"b", b"stays")
    carrying.copy()
    write(carrying.source, b"a", b"second")
    copied = carrying.copy()
    assert tree(carrying.run) == {b"a": b"second", b"b": b"stays"}
    assert [[file.path for file in batch] for batch in carrying.batches] == [[b"a", b"b"], [b"a"]]
    assert carrying.verify(copied).proven
    assert incoming(carrying) == []


def test_another_jobs_copy_is_not_replaced_when_the_source_changed(carrying: Carrying) -> None:
    write(carrying.source, b"a", b"first")
    carrying.copy()
    carrying.batches.clear()
    write(carrying.source, b"a", b"second")
    with pytest.raises(TransferError) as refusal:
        carrying.copy()
    assert refusal.value.kind is FailureKind.DESTINATION_FILE_DIFFERS
    assert tree(carrying.run) == {b"a": b"first"}


@pytest.mark.parametrize(("theirs", "refused"), [(b"theirs", True), (b"ours", False)])
def test_a_name_taken_at_the_last_moment_is_never_replaced(carrying: Carrying, theirs: bytes, refused: bool) -> None:
    write(carrying.source, b"a", b"ours")
    write(carrying.source, b"b", b"ours")
    if refused:
        with pytest.raises(TransferError) as refusal:
            carrying.copy(lambda batch: write(carrying.run, b"a", theirs))
        assert refusal.value.kind is FailureKind.DESTINATION_FILE_DIFFERS
        assert refusal.value.paths == (b"a",)
    else:
        carrying.copy(lambda batch: write(carrying.run, b"a", theirs))
    assert (carrying.run / "a").read_bytes() == theirs
    assert incoming(carrying) == []


def test_what_the_log_refuses_does_not_land(carrying: Carrying) -> None:
    write(carrying.source, b"a", b"ours")

    def refuse(batch: Sequence[CopiedFile]) -> None:
        raise LookupError("the log is closed")

    with pytest.raises(LookupError):
        carrying.copy(refuse)
    assert tree(carrying.run) == {}
    assert incoming(carrying) == []


def test_a_stop_ends_it_and_what_landed_stays(carrying: Carrying) -> None:
    for number in range(2000):
        write(carrying.source, b"%04d" % number, b"x")
    with pytest.raises(TransferStoppedError) as stop:
        carrying.copy(lambda batch: carrying.control.stop(StopReason.GATE_CLOSED))
    assert stop.value.reason is StopReason.GATE_CLOSED
    landed = len(tree(carrying.run))
    assert 0 < landed < 2000
    assert incoming(carrying) == []
    carrying.control = TransferControl()
    copied = carrying.copy()
    assert len(copied) == 2000
    assert carrying.progress.phases[-1][1] == 2000 - landed
    assert carrying.verify(copied).proven


def test_the_first_reason_to_stop_stays() -> None:
    control = TransferControl()
    control.stop(StopReason.PAUSED)
    control.stop(StopReason.CANCELLED)
    with pytest.raises(TransferStoppedError, match="paused"):
        control.wait(60)


def test_leftovers_of_dead_attempts_are_swept_and_no_others(carrying: Carrying) -> None:
    for folder in ("job-1", "job-2", "job-10", "job-1-1", "other-1"):
        write(carrying.destination / os.fsdecode(INCOMING) / folder, b"00000000", b"half")
    carrying.transport.sweep("job", keep_attempt=2, control=carrying.control)
    assert sorted(incoming(carrying)) == ["job-1-1", "job-2", "other-1"]
    carrying.transport.sweep("job", keep_attempt=None, control=carrying.control)
    assert sorted(incoming(carrying)) == ["job-1-1", "other-1"]


def test_sweeping_a_destination_that_never_saw_a_job_does_nothing(carrying: Carrying) -> None:
    carrying.transport.sweep("job", keep_attempt=None, control=carrying.control)
    assert os.listdir(carrying.destination) == []


def test_an_incoming_folder_of_the_same_attempt_is_begun_anew(carrying: Carrying) -> None:
    write(carrying.destination / incoming_folder("job", 1), b"00000000", b"half")
    write(carrying.source, b"a", b"whole")
    carrying.copy()
    assert tree(carrying.run) == {b"a": b"whole"}
    assert incoming(carrying) == []


def test_an_empty_run_makes_an_empty_folder(carrying: Carrying) -> None:
    assert carrying.copy() == []
    assert tree(carrying.run) == {}
    assert not carrying.verify([]).proven


def test_a_destination_is_asked_for_its_room(carrying: Carrying) -> None:
    room = carrying.transport.free_bytes()
    assert room is not None and room > 0
    carrying.transport.check()
    assert incoming(carrying) == []
