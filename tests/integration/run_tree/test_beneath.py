"""Nothing is reached through a symlink, whoever puts it there and whenever; with the kernel's call and without it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.run_tree import beneath
from libs.run_tree.beneath import (
    SymlinkOnTheWayError,
    folder_beneath,
    is_folder_beneath,
    is_taken_beneath,
    link_beneath,
    make_folder_beneath,
    names_beneath,
    open_beneath,
    open_to_read,
    real_place,
    remove_tree_beneath,
    status_beneath,
)
from libs.run_tree.run_path import PathOutsideRootError
from tests.faults.hardening.swapping import swapping

Open = Callable[[bytes, int, int, int | None], int]
WAYS: dict[str, Open] = {"kernel": beneath._open_by_kernel, "step_by_step": beneath._open_step_by_step}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beneath, "_open", WAYS[request.param])


@pytest.fixture
def root(tmp_path: Path, way: None) -> Path:
    (tmp_path / "root" / "a" / "b").mkdir(parents=True)
    (tmp_path / "root" / "a" / "b" / "file").write_bytes(b"inside")
    (tmp_path / "outside" / "b").mkdir(parents=True)
    (tmp_path / "outside" / "b" / "file").write_bytes(b"outside")
    return tmp_path / "root"


def content(place: Path, dir_fd: int | None = None) -> bytes:
    with open(open_to_read(place, dir_fd=dir_fd), "rb") as stream:
        return stream.read()


def replace_by_link(place: Path, target: Path) -> None:
    place.rename(place.with_name("aside"))
    place.symlink_to(target)


def test_this_kernel_has_the_call() -> None:
    assert beneath._open is beneath._open_by_kernel


def test_what_is_there_is_opened(root: Path) -> None:
    assert content(root / "a" / "b" / "file") == b"inside"
    with folder_beneath(root) as folder:
        assert content(Path("a/b/file"), folder) == b"inside"
    with names_beneath(root / "a") as names:
        assert [(n.name, n.is_dir(follow_symlinks=False)) for n in names] == [("b", True)]


@pytest.mark.parametrize("replaced", ["a", "a/b", "a/b/file"])
def test_a_symlink_anywhere_on_the_way_is_refused(root: Path, replaced: str) -> None:
    target = root.parent / "outside" / Path(replaced).relative_to("a")
    replace_by_link(root / replaced, target)
    place = root / "a" / "b" / "file"
    with pytest.raises(SymlinkOnTheWayError):
        open_to_read(place)
    with folder_beneath(root) as folder, pytest.raises(SymlinkOnTheWayError):
        open_beneath("a/b/file", os.O_RDONLY, dir_fd=folder)
    with pytest.raises(OSError, match="symlink"):
        open_beneath(place, os.O_WRONLY | os.O_CREAT, 0o600)
    if replaced != "a/b/file":
        assert not is_folder_beneath(root / "a" / "b")
        for refused in (
            lambda: make_folder_beneath(root / "a" / "b" / "new"),
            lambda: remove_tree_beneath(place),
            lambda: status_beneath(place),
        ):
            with pytest.raises(SymlinkOnTheWayError):
                refused()
    assert sorted(p.name for p in (root.parent / "outside").rglob("*")) == ["b", "file"]
    assert (root.parent / "outside" / "b" / "file").read_bytes() == b"outside"


def test_a_name_that_is_a_symlink_itself_can_be_asked_and_read(root: Path) -> None:
    (root / "link").symlink_to("../outside")
    assert is_taken_beneath(root / "link")
    assert not is_folder_beneath(root / "link")
    target, status = link_beneath(root / "link")
    assert (target, status.st_ino) == (b"../outside", os.lstat(root / "link").st_ino)
    with pytest.raises(OSError) as wrong:
        link_beneath(root / "a")
    assert wrong.value.errno == errno.EINVAL


def test_nothing_climbs(root: Path) -> None:
    for place in (root / "a" / ".." / "a", Path(f"{root}/a/../../outside/b/file")):
        with pytest.raises(OSError, match=r"\.\."):
            open_to_read(place)
    with folder_beneath(root) as folder:
        for path in ("..", "a/../../outside", str(root.parent / "outside")):
            with pytest.raises(OSError):
                open_beneath(path, os.O_RDONLY, dir_fd=folder)
    with pytest.raises(ValueError, match="NUL"):
        open_to_read(f"{root}/a/b/file\0.txt")


def test_a_pipe_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe")
    os.close(open_to_read(root / "pipe"))


def test_a_real_place_resolves_what_stays_inside(root: Path) -> None:
    (root / "inner").symlink_to("a")
    (root / "outer").symlink_to("../outside")
    assert real_place(root, "a/b") == root / "a" / "b"
    assert real_place(root, "inner/b") == root / "a" / "b"
    assert real_place(root, "nowhere/b") == root / "nowhere" / "b"
    with pytest.raises(PathOutsideRootError):
        real_place(root, "outer/b")


def test_folders_are_made_and_trees_removed(root: Path) -> None:
    make_folder_beneath(root / "new")
    make_folder_beneath(root / "new")
    (root / "new" / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder_beneath(root / "new" / "file")
    remove_tree_beneath(root / "new")
    assert not is_taken_beneath(root / "new")


def test_a_folder_that_is_swapped_meanwhile(root: Path) -> None:
    met = {b"inside": 0, b"refused": 0}
    with swapping(root / "a", root.parent / "outside"):
        for _ in range(3000):
            try:
                met[content(root / "a" / "b" / "file")] += 1
            except SymlinkOnTheWayError:
                met[b"refused"] += 1
    assert all(met.values())


FLAGS = (
    os.O_RDONLY,
    os.O_RDONLY | os.O_DIRECTORY,
    os.O_PATH,
    os.O_PATH | os.O_DIRECTORY,
    os.O_WRONLY,
    os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    os.O_RDWR | os.O_CREAT,
)
paths = st.lists(st.sampled_from(["d", "f", "l", "lf", "x", ".", "..", ""]), min_size=1, max_size=4).map("/".join)


@given(path=paths, flags=st.sampled_from(FLAGS), below=st.booleans())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_ways_give_the_same_answers(tmp_path: Path, path: str, flags: int, below: bool) -> None:
    answers = [answer(tmp_path / name, way, path, flags, below) for name, way in WAYS.items()]
    assert answers[0] == answers[1]


def make_tree(base: Path) -> None:
    for below in ("", "d", "d/d"):
        (base / below).mkdir(parents=True)
        (base / below / "f").touch()
        (base / below / "l").symlink_to(base)
        (base / below / "lf").symlink_to("f")


def answer(base: Path, way: Open, path: str, flags: int, below: bool) -> str:
    if not base.exists():
        make_tree(base)
    with folder_beneath(base) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(beneath, "_open", way)
        try:
            opened = open_beneath(path if below else f"{base}/{path}", flags, 0o600, dir_fd=folder if below else None)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
    try:
        place = Path(os.readlink(f"/proc/self/fd/{opened}"))
        if place.name == "x":
            place.unlink()
        return str(place.relative_to(base))
    finally:
        os.close(opened)
