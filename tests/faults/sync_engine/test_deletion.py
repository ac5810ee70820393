"""A file of a ticket goes only while it is exactly what the ticket says, and nothing outside the run can be meant."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from services.sync_engine.cleanup.deletion import Deleted, delete_files
from services.sync_engine.transfer.source_file import SourceFiles, copied_from
from services.sync_engine.transfer.source_tree import scan_run
from services.sync_engine.transfer.transport import CopiedFile, EntryKind


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "Run_2026-04-17T14-32"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.tif").write_bytes(b"pixels")
    (folder / "sub/b.csv").write_bytes(b"1,2\n")
    return folder


def _ticket(run: Path) -> list[CopiedFile]:
    source = SourceFiles(os.fsencode(run))
    return [copied_from(e, source.sha256(e)) for e in scan_run(run) if e.kind is not EntryKind.DIRECTORY]


def _why(deleted: Deleted) -> dict[str, str]:
    return {os.fsdecode(r.path): r.why for r in deleted.remaining}


def test_awkward_names_links_and_emptied_folders(run: Path) -> None:
    names = [b"--delete", b"\xff\xfe", b"two\nlines", b"back\\slash", b"'\"", b"x" * 255]
    for name in names:
        (run / os.fsdecode(name)).write_bytes(name)
    os.symlink("a.tif", run / "link")
    (run / "kept empty").mkdir()
    done = delete_files(run, _ticket(run), lambda: True)
    assert (len(done.files), _why(done)) == (len(names) + 3, {})
    assert [p.name for p in run.iterdir()] == ["kept empty"]


def test_a_folder_that_became_a_symlink_is_not_followed(run: Path, tmp_path: Path) -> None:
    ticket = _ticket(run)
    elsewhere = tmp_path / "elsewhere"
    (run / "sub").rename(elsewhere)
    os.symlink(elsewhere, run / "sub")
    done = delete_files(run, ticket, lambda: True)
    assert [f.path for f in done.files] == [b"a.tif"]
    assert "sub/b.csv" in _why(done)
    assert (elsewhere / "b.csv").read_bytes() == b"1,2\n"


def test_a_symlink_in_the_place_of_a_file_stays_and_so_does_what_it_leads_to(run: Path, tmp_path: Path) -> None:
    ticket = _ticket(run)
    (run / "a.tif").rename(tmp_path / "a.tif")
    os.symlink(tmp_path / "a.tif", run / "a.tif")
    assert _why(delete_files(run, ticket, lambda: True)) == {"a.tif": "a symlink has taken its place"}
    assert (tmp_path / "a.tif").read_bytes() == b"pixels"


def test_a_link_that_leads_elsewhere_now_stays(run: Path) -> None:
    os.symlink("a.tif", run / "link")
    ticket = _ticket(run)
    (run / "link").unlink()
    os.symlink("sub/b.csv", run / "link")
    assert _why(delete_files(run, ticket, lambda: True)) == {
        "link": "the symlink leads elsewhere than when it was verified"
    }


def test_a_file_that_is_open_for_writing_stays(run: Path) -> None:
    ticket = _ticket(run)
    with open(run / "a.tif", "r+b"):
        assert _why(delete_files(run, ticket, lambda: True)) == {"a.tif": "another program has it open for writing"}
    assert delete_files(run, ticket, lambda: True).files[0].path == b"a.tif"


def test_the_same_inode_and_times_with_another_content_stay(run: Path) -> None:
    ticket = _ticket(run)
    before = (run / "a.tif").stat()
    (run / "a.tif").write_bytes(b"PIXELS")
    os.utime(run / "a.tif", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert _why(delete_files(run, ticket, lambda: True)) == {"a.tif": "its content is not what was verified"}


def test_a_pipe_a_folder_and_a_name_that_is_gone(run: Path) -> None:
    ticket = _ticket(run)
    (run / "a.tif").unlink()
    os.mkfifo(run / "a.tif")
    (run / "sub/b.csv").unlink()
    done = delete_files(run, ticket, lambda: True)
    assert done.files == []
    assert set(_why(done)) == {"a.tif"}


def test_a_folder_that_lets_nothing_go(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = _ticket(run)
    unlink = os.unlink

    def refuse(name: bytes, *, dir_fd: int) -> None:
        if name == b"a.tif":
            raise PermissionError(13, "Permission denied")
        unlink(name, dir_fd=dir_fd)

    # The tests run as root, whom no permission stops.
    monkeypatch.setattr(os, "unlink", refuse)
    assert _why(delete_files(run, ticket, lambda: True)) == {"a.tif": "Permission denied"}
    assert hashlib.sha256((run / "a.tif").read_bytes()).hexdigest() == ticket[0].sha256


def test_none_goes_any_more_once_it_may_not(run: Path) -> None:
    ticket = _ticket(run)
    asked = iter([True, False])
    done = delete_files(run, ticket, lambda: next(asked))
    assert [file.path for file in done.files] == [ticket[0].path]
    assert done.remaining == []
    assert {file.path for file in _ticket(run)} == {file.path for file in ticket[1:]}
