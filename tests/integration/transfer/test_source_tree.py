"""Scanning a run on a real disk, and what happened between two scans."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from services.sync_engine.transfer.source_tree import TreeDifference, difference, scan_run
from services.sync_engine.transfer.transport import EntryKind, FailureKind, TransferError
from tests.integration.transfer.carrying import HOSTILE_NAMES, write


def refused(folder: Path) -> TransferError:
    with pytest.raises(TransferError) as error:
        scan_run(folder)
    return error.value


def test_everything_with_its_signature_sorted(tmp_path: Path) -> None:
    write(tmp_path, b"b/\xff", b"12345")
    (tmp_path / "a").symlink_to("b")
    entries = scan_run(tmp_path)
    assert [(entry.path, entry.kind, entry.size, entry.link_target) for entry in entries] == [
        (b"a", EntryKind.SYMLINK, 1, b"b"),
        (b"b", EntryKind.DIRECTORY, 0, None),
        (b"b/\xff", EntryKind.FILE, 5, None),
    ]
    status = os.lstat(os.fsencode(tmp_path) + b"/b/\xff")
    assert (entries[2].mtime_ns, entries[2].ctime_ns, entries[2].inode) == (
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
    )


def test_hostile_names(tmp_path: Path) -> None:
    for name in HOSTILE_NAMES:
        write(tmp_path, name, b"")
    assert [entry.path for entry in scan_run(tmp_path)] == sorted(HOSTILE_NAMES)


@pytest.mark.parametrize("target", ["../outside", "/etc/passwd", "folder/../../outside", "up/../../x", "chain"])
def test_a_symlink_that_leaves_the_run_is_refused(tmp_path: Path, target: str) -> None:
    run = tmp_path / "run"
    (run / "folder" / "deep").mkdir(parents=True)
    (run / "up").symlink_to("folder/deep")
    (run / "chain").symlink_to("..")
    (run / "ok").symlink_to("folder/../up")
    (run / "link").symlink_to(target)
    leaving = refused(run)
    assert leaving.kind is FailureKind.SYMLINK_LEAVES_RUN
    assert b"link" in leaving.paths or b"chain" in leaving.paths
    assert b"ok" not in leaving.paths


def test_an_absolute_symlink_leaves_the_run_even_when_it_points_into_it(tmp_path: Path) -> None:
    write(tmp_path, b"a", b"")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert refused(tmp_path).paths == (b"link",)


def test_links_inside_and_dangling_ones_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to("../a")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere/at/all")
    assert len(scan_run(tmp_path)) == 4


def test_pipes_and_sockets_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    special = refused(tmp_path)
    assert special.kind is FailureKind.LOCAL_FILE_UNREADABLE
    assert special.paths == (b"pipe",)
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(tmp_path, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        assert "socket, pipe or device" in refused(tmp_path).message


def test_a_run_that_is_not_there_vanished(tmp_path: Path) -> None:
    assert refused(tmp_path / "gone").kind is FailureKind.LOCAL_FILE_VANISHED


def test_what_happened_between_two_scans(tmp_path: Path) -> None:
    for name in (b"same", b"edited", b"removed", b"replaced", b"touched", b"folder/x", b"turned"):
        write(tmp_path, name, b"1")
    (tmp_path / "link").symlink_to("same")
    before = scan_run(tmp_path)
    assert difference(before, scan_run(tmp_path)).is_empty
    write(tmp_path, b"edited", b"2")
    (tmp_path / "removed").unlink()
    write(tmp_path, b"other", b"1")
    (tmp_path / "other").rename(tmp_path / "replaced")
    os.utime(tmp_path / "touched")
    write(tmp_path, b"folder/new", b"")
    (tmp_path / "turned").unlink()
    (tmp_path / "turned").mkdir()
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("edited")
    assert difference(before, scan_run(tmp_path)) == TreeDifference(
        added=(b"folder/new",),
        changed=(b"edited", b"link", b"replaced", b"touched", b"turned"),
        removed=(b"removed",),
    )


def test_a_lock_beside_creation_json_is_no_change(tmp_path: Path) -> None:
    write(tmp_path, b".exlab-wizard/creation.json", b"{}")
    before = scan_run(tmp_path)
    write(tmp_path, b".exlab-wizard/creation.json", b"{ }")
    write(tmp_path, b".exlab-wizard/creation.json.lock", b"")
    assert difference(before, scan_run(tmp_path)).is_empty


def test_a_run_that_is_swapped_for_a_symlink_while_it_is_looked_for_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "led").symlink_to("run")
    read = os.readlink

    def swapped(path: bytes) -> bytes:
        os.unlink(path)
        os.mkdir(path)
        return read(path)

    monkeypatch.setattr(os, "readlink", swapped)
    with pytest.raises(TransferError) as error:
        scan_run(tmp_path / "led")
    assert error.value.kind is FailureKind.SOURCE_CHANGED
