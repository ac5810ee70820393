"""A file of a ticket goes only while it is exactly what the ticket says, and nothing outside the run can be meant."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from services.sync_engine.cleanup import set_aside
from services.sync_engine.cleanup.cut_off import put_back_what_was_cut_off
from services.sync_engine.cleanup.deletion import Deleted, delete_files
from services.sync_engine.cleanup.set_aside import aside_name, path_set_aside
from services.sync_engine.transfer.source_file import SourceFiles, copied_from
from services.sync_engine.transfer.source_tree import scan_run
from services.sync_engine.transfer.transport import CopiedFile, EntryKind
from tests.integration.run_tree.test_mounts_below import mounted


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "Run_2026-04-17T14-32"
    (folder / "sub").mkdir(parents=True)
    (folder / ".exlab-wizard").mkdir()
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
    assert {p.name for p in run.iterdir()} == {".exlab-wizard", "kept empty"}
    assert list((run / ".exlab-wizard").iterdir()) == []


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


@pytest.mark.parametrize("refusal", [errno.EACCES, errno.EINVAL], ids=["of another user", "no leases at all"])
def test_a_file_on_which_there_is_no_lease_stays_unless_that_is_allowed(
    run: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    ticket = _ticket(run)
    control = fcntl.fcntl

    def refuse(descriptor: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETLEASE:
            raise OSError(refusal, os.strerror(refusal))
        return control(descriptor, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    done = delete_files(run, ticket, lambda: True)
    assert (done.files, set(_why(done))) == ([], {"a.tif", "sub/b.csv"})
    assert all("nas_cleanup.delete_without_lease" in why for why in _why(done).values())
    assert len(delete_files(run, ticket, lambda: True, without_lease=True).files) == 2


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
        if path_set_aside(name, dict) == b"a.tif":
            raise PermissionError(13, "Permission denied")
        unlink(name, dir_fd=dir_fd)

    # The tests run as root, whom no permission stops.
    monkeypatch.setattr(os, "unlink", refuse)
    assert _why(delete_files(run, ticket, lambda: True)) == {"a.tif": "Permission denied"}
    assert hashlib.sha256((run / "a.tif").read_bytes()).hexdigest() == ticket[0].sha256


def test_a_file_that_is_replaced_when_it_may_go_stays(run: Path) -> None:
    ticket = _ticket(run)

    def replaced() -> bool:
        (run / "new").write_bytes(b"PIXELS")
        os.replace(run / "new", run / "a.tif")
        return True

    assert _why(delete_files(run, ticket[:1], replaced)) == {"a.tif": "another file has taken its place"}
    assert (run / "a.tif").read_bytes() == b"PIXELS"
    assert list((run / ".exlab-wizard").iterdir()) == []


def test_a_link_that_is_replaced_when_it_may_go_stays(run: Path) -> None:
    os.symlink("a.tif", run / "link")
    ticket = [file for file in _ticket(run) if file.path == b"link"]

    def replaced() -> bool:
        (run / "link").unlink()
        (run / "link").write_bytes(b"no link")
        return True

    assert _why(delete_files(run, ticket, replaced)) == {"link": "it is no symlink any more"}
    assert (run / "link").read_bytes() == b"no link"


@pytest.mark.parametrize("exclusive", [True, False], ids=["exclusive rename", "links only"])
def test_a_file_that_is_replaced_twice_is_kept_beside_the_second(
    run: Path, monkeypatch: pytest.MonkeyPatch, exclusive: bool
) -> None:
    ticket = _ticket(run)
    if not exclusive:
        monkeypatch.setattr(set_aside, "rename_noreplace", _no_exclusive_rename)
    move = set_aside._move_away

    def replaced_before_and_after(parent: int, name: bytes, cache: int, aside: bytes) -> None:
        (run / "new").write_bytes(b"second")
        os.replace(run / "new", run / "a.tif")
        move(parent, name, cache, aside)
        (run / "a.tif").write_bytes(b"third")

    monkeypatch.setattr(set_aside, "_move_away", replaced_before_and_after)
    (why,) = _why(delete_files(run, ticket[:1], lambda: True)).values()
    (aside,) = (run / ".exlab-wizard").iterdir()
    assert why.endswith(f"(another file took its name meanwhile) and lies in .exlab-wizard/{aside.name}")
    assert (aside.read_bytes(), (run / "a.tif").read_bytes()) == (b"second", b"third")


def test_where_no_rename_is_exclusive_the_rest_is_the_same(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = _ticket(run)
    monkeypatch.setattr(set_aside, "rename_noreplace", _no_exclusive_rename)

    def replaced() -> bool:
        if (run / "a.tif").exists():
            (run / "new").write_bytes(b"PIXELS")
            os.replace(run / "new", run / "a.tif")
        return True

    done = delete_files(run, ticket, replaced)
    assert (list(_why(done)), [file.path for file in done.files]) == (["a.tif"], [b"sub/b.csv"])
    assert (run / "a.tif").read_bytes() == b"PIXELS"


def _no_exclusive_rename(*names: object) -> None:
    raise OSError(errno.EINVAL, "Invalid argument")


def test_what_was_cut_off_goes_back_under_its_name_however_long(run: Path) -> None:
    names = [b"x" * 255, b"deep/" * 20 + b"y" * 200, b"sub/--\xff\n= a%2F.tif"]
    for name in names:
        path = run / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name)
    ticket = _ticket(run)
    for name in names:
        os.rename(run / os.fsdecode(name), run / ".exlab-wizard" / os.fsdecode(aside_name(name)))
    assert put_back_what_was_cut_off(run, ticket) == []
    assert [(run / os.fsdecode(name)).read_bytes() for name in names] == names
    assert list((run / ".exlab-wizard").iterdir()) == []


def test_what_was_cut_off_can_not_lead_out_of_the_run(run: Path) -> None:
    for path in (b"../out.tif", b"/tmp/out.tif", b"sub/../../out.tif"):
        (run / ".exlab-wizard" / os.fsdecode(aside_name(path))).write_bytes(b"planted")
    assert len(put_back_what_was_cut_off(run, ())) == 3
    assert len(list((run / ".exlab-wizard").iterdir())) == 3


def test_none_goes_any_more_once_it_may_not(run: Path) -> None:
    ticket = _ticket(run)
    asked = iter([True, False])
    done = delete_files(run, ticket, lambda: next(asked))
    assert [file.path for file in done.files] == [ticket[0].path]
    assert done.remaining == []
    assert {file.path for file in _ticket(run)} == {file.path for file in ticket[1:]}


def test_what_is_mounted_in_the_run_keeps_everything(run: Path, tmp_path: Path) -> None:
    ticket = _ticket(run)
    (tmp_path / "nas").mkdir()
    (run / "sub/b.csv").rename(tmp_path / "nas/b.csv")
    with mounted(tmp_path / "nas", run / "sub"):
        done = delete_files(run, ticket, lambda: True)
    assert done.files == ()
    assert set(_why(done)) == {"a.tif", "sub/b.csv"}
    assert all("mounted in the run, at sub" in why for why in _why(done).values())
    assert (tmp_path / "nas/b.csv").exists()


def test_too_many_that_are_seen_at_once_keep_everything(run: Path) -> None:
    for number in range(100):
        (run / f"{number:02}.tif").write_bytes(b"%d" % number)
    ticket = _ticket(run)
    with ExitStack() as writers:
        for number in range(40, 100):
            writers.enter_context(open(run / f"{number:02}.tif", "r+b"))
        done = delete_files(run, ticket, lambda: True, too_many=lambda refused: refused > 5)
    assert (done.files, len(_why(done))) == ((), 60)
    assert len(_ticket(run)) == 102


def test_too_many_that_only_reading_tells_of_end_it(run: Path) -> None:
    for number in range(20):
        (run / f"{number:02}.tif").write_bytes(b"%02d" % number)
    ticket = _ticket(run)
    for number in range(10, 20):
        before = (run / f"{number:02}.tif").stat()
        (run / f"{number:02}.tif").write_bytes(b"??")
        os.utime(run / f"{number:02}.tif", ns=(before.st_atime_ns, before.st_mtime_ns))
    done = delete_files(run, ticket, lambda: True, too_many=lambda refused: refused > 3)
    assert sorted(_why(done)) == ["10.tif", "11.tif", "12.tif", "13.tif"]
    assert [file.path for file in done.files] == [b"%02d.tif" % number for number in range(10)]
