"""A receipt that was changed anywhere, or a run that was, is noticed: by Labferry and by the script in docs/ alike."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from libs.run_tree.manifest import MANIFEST_PATH
from libs.run_tree.receipt import ProvenCopy, Receipt, read_receipt, receipt_file_name
from libs.run_tree.receipt_check import check_run
from tests.unit.run_tree.made_receipt import (
    FILES,
    FINGERPRINT,
    KEY,
    VERIFIER,
    by_script,
    made_receipt,
    made_run,
    problem_of,
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made_run(tmp_path)


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for name in value:
            yield from _leaves(value[name], (*path, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _leaves(each, (*path, index))
    else:
        yield path


def _with(document: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> bytes:
    changed = json.loads(json.dumps(document))
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = change(place[path[-1]])
    return json.dumps(changed).encode()


def _another(value: Any) -> Any:
    if isinstance(value, int):
        return value + 1
    return "0" + value[1:] if value[:1] not in ("", "0") else "1" + value[1:]


def test_a_valid_receipt_passes(run: Path, tmp_path: Path) -> None:
    content = made_receipt(run)
    assert problem_of(content, run) == ""
    key = tmp_path / "key.pub"
    key.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    said = by_script(content, run, str(key))
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("valid: 5 files")
    assert said.stdout.endswith(f", 0 beside them, signed with the key {FINGERPRINT}\n")
    other = tmp_path / "other.pub"
    public = Ed25519PrivateKey.generate().public_key()
    other.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    said = by_script(content, run, str(other))
    assert (said.returncode, said.stderr) == (1, "public_key: is not the one that was given\n")


def test_every_field_that_is_changed_added_or_removed(run: Path) -> None:
    document = json.loads(made_receipt(run))
    paths = list(_leaves(document))
    assert len(paths) > len(Receipt.__struct_fields__) + len(ProvenCopy.__struct_fields__)
    for path in paths:
        tampered = _with(document, path, _another)
        expected = "layout" if path == ("layout",) else "signature"
        assert problem_of(tampered, run) == expected, path
        said = by_script(tampered, run)
        assert (said.returncode, said.stderr.partition(":")[0]) in ((1, expected), (1, "format")), path
    for name in document:
        without = {key: value for key, value in document.items() if key != name}
        assert problem_of(json.dumps(without).encode(), run) in ("format", "signature"), name
    assert problem_of(json.dumps({**document, "more": 1}).encode(), run) == "signature"
    twice = json.dumps(document)[:-1] + ', "file_count": 5}'
    assert problem_of(twice.encode(), run) == "format"
    assert by_script(twice.encode(), run).returncode == 1


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_file_that_is_changed_or_missing(run: Path, name: bytes) -> None:
    content = made_receipt(run)
    path = run / name.decode(errors="surrogateescape")
    path.write_bytes(FILES[name] + b"!")
    shown = name.decode(errors="replace")
    assert problem_of(content, run) == shown
    said = by_script(content, run)
    assert said.returncode == 1
    assert shown.replace("\n", "\\n") in said.stderr
    path.unlink()
    assert problem_of(content, run) == shown
    assert by_script(content, run).returncode == 1


def test_a_symlink_in_the_place_of_a_file(run: Path, tmp_path: Path) -> None:
    content = made_receipt(run)
    (run / "a.tif").rename(tmp_path / "a.tif")
    (run / "a.tif").symlink_to(tmp_path / "a.tif")
    assert problem_of(content, run) == "a.tif"
    assert by_script(content, run).returncode == 1


@pytest.mark.parametrize("written", [b"a.tif", b"./a.tif", b"sub/../a.tif", b"a.tif/"])
@pytest.mark.parametrize("more", [0, 1])
def test_a_manifest_that_the_engine_never_writes(run: Path, written: bytes, more: int) -> None:
    """The command and the script say the same of it."""
    manifest = run / MANIFEST_PATH.decode()
    line = hashlib.sha256(FILES[b"a.tif"]).hexdigest().encode() + b"  " + written + b"\n"
    manifest.write_bytes(manifest.read_bytes() + line)
    count, size = len(FILES) + more, sum(map(len, FILES.values())) + more * len(FILES[b"a.tif"])
    content = made_receipt(run)
    proven = read_receipt(content).receipt.copies[0]
    copy = msgspec.structs.replace(proven, expected=count, hashed=count, matched=count)
    content = made_receipt(run, file_count=count, byte_count=size, copies=[copy])
    valid = bool(more) and written == b"a.tif"
    assert (problem_of(content, run) == "") is valid
    assert (by_script(content, run).returncode == 0) is valid


@pytest.mark.parametrize("name", ["sub", ".exlab-wizard"])
def test_a_symlink_in_the_place_of_a_folder(run: Path, tmp_path: Path, name: str) -> None:
    content = made_receipt(run)
    (run / name).rename(tmp_path / "elsewhere")
    (run / name).symlink_to(tmp_path / "elsewhere")
    wrong = "sub/two\nlines" if name == "sub" else MANIFEST_PATH.decode()
    assert problem_of(content, run) == wrong
    assert by_script(content, run).returncode == 1


def test_what_a_receipt_does_not_cover_is_counted(run: Path) -> None:
    content = made_receipt(run)
    (run / "sub" / "late.tif").write_bytes(b"late")
    (run / "link").symlink_to("sub")
    (run / ".exlab-wizard" / "wizard.host.log").write_bytes(b"rewritten by programs")
    check = check_run(read_receipt(content).receipt, run)
    assert (check.wrong, check.beside) == ([], 2)
    said = by_script(content, run)
    assert (said.returncode, said.stderr) == (0, "")
    assert ", 2 beside them, " in said.stdout
    (run / "sub" / "late.tif").unlink()
    (run / "link").unlink()
    assert check_run(read_receipt(content).receipt, run).beside == 0
    assert ", 0 beside them, " in by_script(content, run).stdout


@pytest.mark.parametrize(
    "copies",
    [
        [],
        [{"destination": "archive"}],
        [{"grade": "E0", "hashed": 0, "matched": 0}],
        [{"grade": "E3"}],
        [{"hashed": 3}],
        [{"matched": 3}],
        [{"expected": 1, "hashed": 1, "matched": 1}],
        [{"expected": 6, "hashed": 6, "matched": 6}],
        [{"grade": "E9"}],
        [{"grade": "FINE"}],
        [{"expected": 0, "hashed": 0, "matched": 0}],
    ],
)
def test_a_receipt_without_a_proven_copy_at_its_destination(run: Path, copies: list[dict[str, Any]]) -> None:
    proven = read_receipt(made_receipt(run)).receipt.copies[0]
    content = made_receipt(run, copies=[msgspec.structs.replace(proven, **changed) for changed in copies])
    assert problem_of(content, run) == "copies"
    said = by_script(content, run)
    assert (said.returncode, said.stderr) == (1, "copies: none at the receipt's destination was read back whole\n")
    more = made_receipt(run, copies=[*(msgspec.structs.replace(proven, **changed) for changed in copies), proven])
    assert problem_of(more, run) == ""
    assert by_script(more, run).returncode == 0


def test_nothing_that_is_printed_steers_the_terminal(run: Path) -> None:
    evil = "\x1b]0;owned\x07\n\u202egnp"
    said = by_script(made_receipt(run, run=evil), run)
    assert said.returncode == 0
    wrong = by_script(made_receipt(run, run=evil, byte_count=6), run)
    (run / "sub/two\nlines").unlink()
    missing = by_script(made_receipt(run), run)
    for text in (said.stdout, wrong.stderr, missing.stderr):
        assert text.count("\n") == 1
        assert text.rstrip("\n").isprintable()


def test_another_manifest_and_counts_that_were_signed_wrong(run: Path) -> None:
    content = made_receipt(run)
    (copy,) = read_receipt(content).receipt.copies
    six = msgspec.structs.replace(copy, expected=6, hashed=6, matched=6)
    for field in ("file_count", "byte_count"):
        wrong = made_receipt(run, **{field: 6}, copies=[six if field == "file_count" else copy])
        assert problem_of(wrong, run) == field
        assert by_script(wrong, run).stderr.startswith(f"{field}: ")
    (run / MANIFEST_PATH.decode()).write_bytes(b"")
    assert problem_of(content, run) == "manifest_sha256"
    assert by_script(content, run).stderr.startswith("manifest_sha256: ")


def test_the_script_needs_only_the_standard_library_and_cryptography() -> None:
    text = VERIFIER.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 122
    roots = {line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert roots - set(sys.stdlib_module_names) == {"cryptography"}


def test_a_name_that_is_no_destinations() -> None:
    assert receipt_file_name("nas-2_b") == "receipt.nas-2_b.json"
    with pytest.raises(ValueError, match="no destination's name"):
        receipt_file_name("../nas")
