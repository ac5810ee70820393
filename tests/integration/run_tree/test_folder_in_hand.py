"""Names asked for one after the other are found as if each were asked for alone, and no symlink leads elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.run_tree.beneath import SymlinkOnTheWayError, folder_beneath, open_to_read
from libs.run_tree.folder_in_hand import FolderInHand

FOLDERS = ("", "a/", "a/b/", "a/c/", "b/", "missing/", "file/", "link/")
NAMES = ("file", "other", "missing", "link", "folder")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in FOLDERS[:5]:
        (tmp_path / folder / "folder").mkdir(parents=True)
        (tmp_path / folder / "file").write_text(f"{folder}file")
        (tmp_path / folder / "other").write_text(f"{folder}other")
        (tmp_path / folder / "link").symlink_to(tmp_path / "b")
    return tmp_path


@pytest.fixture
def unchanged_descriptors() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert len(os.listdir("/proc/self/fd")) == len(before)


def inode(descriptor: int) -> int:
    try:
        return os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)


def found_alone(place: bytes, dir_fd: int | None) -> int | type[OSError]:
    try:
        return inode(open_to_read(place, dir_fd=dir_fd))
    except OSError as error:
        return type(error)


def found_in_turn(in_hand: FolderInHand, place: bytes) -> int | type[OSError]:
    try:
        folder, name = in_hand.of(place)
        return inode(open_to_read(name, dir_fd=folder))
    except OSError as error:
        return type(error)


@pytest.mark.usefixtures("unchanged_descriptors")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(FOLDERS), st.sampled_from(NAMES)), max_size=20), st.booleans())
def test_each_is_found_as_if_asked_for_alone(root: Path, asked: list[tuple[str, str]], relative: bool) -> None:
    with folder_beneath(root) as folder:
        dir_fd, above = (folder, b"") if relative else (None, os.fsencode(root) + b"/")
        places = [above + os.fsencode(folder + name) for folder, name in asked]
        with FolderInHand(dir_fd=dir_fd) as in_hand:
            in_turn = [found_in_turn(in_hand, place) for place in places]
        assert in_turn == [found_alone(place, dir_fd) for place in places]


def test_a_name_at_the_very_top_is_found() -> None:
    with FolderInHand() as in_hand:
        folder, name = in_hand.of(b"/proc")
        assert (os.fstat(folder).st_ino, name) == (os.stat("/").st_ino, b"proc")


@pytest.mark.usefixtures("unchanged_descriptors")
def test_a_folder_replaced_by_a_symlink_leads_nowhere(root: Path) -> None:
    with FolderInHand() as in_hand:
        place = os.fsencode(root / "a" / "b" / "file")
        kept = found_in_turn(in_hand, place)
        (root / "a" / "b").rename(root / "aside")
        (root / "a" / "b").symlink_to(root / "b")
        # The folder itself is in hand, not its name.
        assert found_in_turn(in_hand, place) == kept
        in_hand.let_go()
        with pytest.raises(SymlinkOnTheWayError):
            in_hand.of(place)
        assert found_in_turn(in_hand, os.fsencode(root / "b" / "file")) == (root / "b" / "file").stat().st_ino
