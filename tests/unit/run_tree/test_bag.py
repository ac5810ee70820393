"""What a bag's manifest looks like where the bagit library can't tell, and what can't be put into one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import bagit
import pytest

from libs.run_tree.bag import BagError, BaggedFile, BagWriter, misread_by_python_bagit


def _add(bag: BagWriter, run: Path, name: bytes) -> None:
    (run / name.decode(errors="surrogateescape")).write_bytes(name)
    bag.copy(name, hashlib.sha256(name).hexdigest(), [run])


def test_names_are_escaped_as_the_standard_says(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with BagWriter(tmp_path / "bag") as bag:
        for name in (b"100%.csv", b"two\nlines", b"carriage\rreturn", b"back\\slash"):
            _add(bag, run, name)
        bag.close({"External-Identifier": "two\nlines"}, {})
    listed = (tmp_path / "bag/manifest-sha256.txt").read_text("utf-8").splitlines()
    assert {line.partition("  ")[2] for line in listed} == {
        "data/100%25.csv",
        "data/two%0Alines",
        "data/carriage%0Dreturn",
        "data/back\\slash",
    }
    assert "External-Identifier: two lines\n" in (tmp_path / "bag/bag-info.txt").read_text("utf-8")


def test_a_name_that_is_not_utf8_leaves_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(BagError, match="not UTF-8"), BagWriter(tmp_path / "bag") as bag:
        _add(bag, run, b"\xff.bin")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_the_runs_own_file_is_never_written_over(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(BagError, match="itself"), BagWriter(tmp_path / "bag") as bag:
        _add(bag, run, b"ro-crate-metadata.json")
        bag.write("ro-crate-metadata.json", [b"{}"])


def test_a_name_that_the_bags_folder_takes_for_another_is_told(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for other in (b"a.tif", b"a.tif/below"):
        # What a folder without case makes of A.tif and a.tif.
        with pytest.raises(BagError, match="by case"), BagWriter(tmp_path / "bag") as bag:
            _add(bag, run, b"a.tif")
            bag.copy(other, "", [run])
        assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_what_one_source_lacks_comes_from_the_next(tmp_path: Path) -> None:
    for folder, content in (("gone", b""), ("longer", b"not the content"), ("run", b"content")):
        (tmp_path / folder).mkdir()
        if content:
            (tmp_path / folder / "a").write_bytes(content)
    sources = [tmp_path / "gone", tmp_path / "longer", tmp_path / "run"]
    with BagWriter(tmp_path / "bag") as bag:
        assert bag.copy(b"a", hashlib.sha256(b"content").hexdigest(), sources) == BaggedFile(7, tmp_path / "run")
        bag.close({}, {".exlab-wizard/creation.json": b"{}"})
    assert (tmp_path / "bag/data/a").read_bytes() == b"content"
    assert "tagmanifest-sha256.txt" in {p.name for p in (tmp_path / "bag").iterdir()}
    bagit.Bag(str(tmp_path / "bag")).validate()


def test_a_folder_that_appeared_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="appeared meanwhile"), BagWriter(tmp_path / "bag") as bag:
        (tmp_path / "bag").mkdir()
        bag.close({}, {})
    assert [(p.name, list(p.iterdir())) for p in tmp_path.iterdir()] == [("bag", [])]


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_a_bag_that_is_stopped_is_none(tmp_path: Path, asked: int) -> None:
    """While a file is copied, or at the last moment."""
    run = tmp_path / "run"
    run.mkdir()
    answers = iter([*[False] * asked, True])
    with pytest.raises(BagError, match="stopped"), BagWriter(tmp_path / "bag", lambda: next(answers)) as bag:
        _add(bag, run, b"a")
        bag.close({}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


_STRANGE = (
    "a%0Ab",
    "100%.csv",
    "line\u2028break",
    "next\x85line",
    "form\x0cfeed",
    "trailing ",
    "no-break\u00a0",
    "\x1c",
)
_PLAIN = ("two\nlines", "carriage\rreturn", " leading", "back\\slash", "~", "..x", "* x", "größe", "a  b", "tab\tin")


_TWINS = ("gr\u00f6\u00dfe", "gro\u0308\u00dfe")


@pytest.mark.parametrize(
    ("names", "misread"),
    [*(((name,), (name,)) for name in _STRANGE), *(((name,), ()) for name in (*_PLAIN, *_TWINS)), (_TWINS, _TWINS)],
)
def test_which_names_the_bagit_package_reads(tmp_path: Path, names: tuple[str, ...], misread: tuple[str, ...]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with BagWriter(tmp_path / "bag") as bag:
        for name in names:
            _add(bag, run, name.encode())
        bag.close({}, {})
    try:
        bagit.Bag(str(tmp_path / "bag")).validate()
        read = True
    except bagit.BagError:
        read = False
    assert read is not bool(misread)
    assert misread_by_python_bagit(lambda: names) == list(misread)
