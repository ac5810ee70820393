"""What a bag's manifest looks like where the bagit library can't tell, and what can't be put into one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from libs.run_tree.bag import BagError, BagWriter


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
