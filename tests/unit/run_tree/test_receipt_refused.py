"""What is no receipt, or can't be read, is refused by Labferry and by the script in docs/ alike, in one line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from libs.run_tree.manifest import MANIFEST_PATH
from libs.run_tree.receipt import read_receipt
from tests.unit.run_tree.made_receipt import (
    by_script,
    made_receipt,
    made_run,
    problem_of,
    refused_in_a_line,
    script,
    signed,
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made_run(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b"{}", b"[" * 100_000, b'{"layout": 1e999}'])
def test_what_is_no_receipt(run: Path, content: bytes) -> None:
    assert problem_of(content, run) == "format"
    refused_in_a_line(by_script(content, run), "format")


@pytest.mark.parametrize(
    "changed",
    [
        {"file_count": 5.0},
        {"byte_count": float("nan")},
        {"amendment": True},
        {"tools": {"rsync": 3}},
        {"tools": []},
        {"log_hash": None},
        {"log_position": 7.0},
        {"expected": 5.0},
        {"grade": 4},
    ],
)
def test_a_signed_document_of_another_form(run: Path, changed: dict[str, Any]) -> None:
    """`None` leaves a field out. What isn't the receipt's own is its copy's."""
    document = json.loads(made_receipt(run))
    ((name, value),) = changed.items()
    owner = document if name in document else document["copies"][0]
    owner.pop(name)
    if value is not None:
        owner[name] = value
    content = signed(document)
    assert problem_of(content, run) == "format"
    refused_in_a_line(by_script(content, run), "format")


def test_what_cannot_be_read_is_told_in_a_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "other.pub").write_bytes(b"no key")
    receipt = tmp_path / "receipt.json"
    receipt.write_bytes(made_receipt(run))
    nowhere = tmp_path / "nowhere"
    for arguments in ((nowhere, run), (run, run), (receipt, nowhere), (receipt, run, nowhere), (receipt,)):
        refused_in_a_line(script(*arguments), "can't be checked")
    refused_in_a_line(script(receipt, run, tmp_path / "other.pub"), "can't be checked")


def test_a_name_that_no_file_can_have(run: Path) -> None:
    (run / MANIFEST_PATH.decode()).write_bytes(b"0" * 64 + b"  a\0b\n")
    content = made_receipt(run)
    assert problem_of(content, run) == "a\0b"
    refused_in_a_line(by_script(content, run), "can't be checked")


def test_no_name_leads_out_of_the_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"outside")
    digest = hashlib.sha256(b"outside").hexdigest()
    for name in ("../outside", "sub/../../outside", str(tmp_path / "outside")):
        (run / MANIFEST_PATH.decode()).write_text(f"{digest}  {name}\n", encoding="utf-8")
        (copy,) = read_receipt(made_receipt(run)).receipt.copies
        one = msgspec.structs.replace(copy, expected=1, hashed=1, matched=1)
        content = made_receipt(run, file_count=1, byte_count=7, copies=[one])
        assert problem_of(content, run) == MANIFEST_PATH.decode()
        refused_in_a_line(by_script(content, run), name)
