"""A receipt that was changed anywhere, or a run that was, is noticed: by Labferry and by the script in docs/ alike."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from libs.run_tree.manifest import MANIFEST_PATH, ManifestEntry, format_manifest
from libs.run_tree.receipt import ProvenCopy, Receipt, ReceiptError, read_receipt, receipt_file_name, sign_receipt
from libs.run_tree.receipt_check import check_run

VERIFIER = Path(__file__).parents[3] / "docs" / "verify_receipt.py"
FILES = {b"a.tif": b"pixels", b"sub/two\nlines": b"1,2\n", "größe.csv".encode(): b"", b"\xff.bin": b"raw"}
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "Run_2026-04-17T14-32"
    (folder / ".exlab-wizard").mkdir(parents=True)
    for name, content in FILES.items():
        path = folder / name.decode(errors="surrogateescape")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    entries = [ManifestEntry(name, hashlib.sha256(content).hexdigest()) for name, content in FILES.items()]
    (folder / MANIFEST_PATH.decode()).write_bytes(format_manifest(entries))
    return folder


def _receipt(run: Path, /, **changed: Any) -> bytes:
    copy = ProvenCopy(
        destination="nas",
        transport="mounted",
        job_id="j",
        grade="E4",
        method="uncached_read",
        host="größe",
        note="",
        verified_time="2026-04-17T15:00:00.000000Z",
        expected=4,
        hashed=4,
        matched=4,
        evidence_sha256="1" * 64,
        log_position=7,
        log_hash="2" * 64,
    )
    receipt = Receipt(
        run="CONFOCAL_01/Cortex Q3 Pilot/Runs/Run_2026-04-17T14-32",
        equipment_id="CONFOCAL_01",
        destination="nas",
        job_id="j",
        amendment=0,
        issued_time="2026-04-17T15:00:01.000000Z",
        manifest_sha256=hashlib.sha256((run / MANIFEST_PATH.decode()).read_bytes()).hexdigest(),
        file_count=len(FILES),
        byte_count=sum(map(len, FILES.values())),
        copies=[copy],
        log_id="store",
        tools={"labferry": "1"},
    )
    return sign_receipt(msgspec.structs.replace(receipt, **changed), KEY)


def _problem(content: bytes, run: Path) -> str:
    """What Labferry says first; empty: it is valid."""
    try:
        wrong = check_run(read_receipt(content).receipt, run).wrong
    except ReceiptError as error:
        return error.field
    return wrong[0].what if wrong else ""


def _by_script(content: bytes, run: Path, *key: str) -> subprocess.CompletedProcess[str]:
    file = run.parent / "receipt.json"
    file.write_bytes(content)
    command = [sys.executable, "-I", str(VERIFIER), str(file), str(run), *key]
    return subprocess.run(command, capture_output=True, text=True, check=False)


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
    content = _receipt(run)
    assert _problem(content, run) == ""
    key = tmp_path / "key.pub"
    key.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    said = _by_script(content, run, str(key))
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("valid: 4 files")
    other = tmp_path / "other.pub"
    public = Ed25519PrivateKey.generate().public_key()
    other.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    said = _by_script(content, run, str(other))
    assert (said.returncode, said.stderr) == (1, "public_key: is not the one that was given\n")


def test_every_field_that_is_changed_added_or_removed(run: Path) -> None:
    document = json.loads(_receipt(run))
    paths = list(_leaves(document))
    assert len(paths) > len(Receipt.__struct_fields__) + len(ProvenCopy.__struct_fields__)
    for path in paths:
        tampered = _with(document, path, _another)
        expected = "layout" if path == ("layout",) else "signature"
        assert _problem(tampered, run) == expected, path
        said = _by_script(tampered, run)
        assert (said.returncode, said.stderr.partition(":")[0]) in ((1, expected), (1, "format")), path
    for name in document:
        without = {key: value for key, value in document.items() if key != name}
        assert _problem(json.dumps(without).encode(), run) in ("format", "signature"), name
    assert _problem(json.dumps({**document, "more": 1}).encode(), run) == "signature"
    twice = json.dumps(document)[:-1] + ', "file_count": 4}'
    assert _problem(twice.encode(), run) == "format"
    assert _by_script(twice.encode(), run).returncode == 1


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_file_that_is_changed_or_missing(run: Path, name: bytes) -> None:
    content = _receipt(run)
    path = run / name.decode(errors="surrogateescape")
    path.write_bytes(FILES[name] + b"!")
    shown = name.decode(errors="replace")
    assert _problem(content, run) == shown
    said = _by_script(content, run)
    assert said.returncode == 1
    assert shown.replace("\n", "\\n") in said.stderr
    path.unlink()
    assert _problem(content, run) == shown
    assert _by_script(content, run).returncode == 1


def test_a_symlink_in_the_place_of_a_file(run: Path, tmp_path: Path) -> None:
    content = _receipt(run)
    (run / "a.tif").rename(tmp_path / "a.tif")
    (run / "a.tif").symlink_to(tmp_path / "a.tif")
    assert _problem(content, run) == "a.tif"
    assert _by_script(content, run).returncode == 1


@pytest.mark.parametrize("name", ["sub", ".exlab-wizard"])
def test_a_symlink_in_the_place_of_a_folder(run: Path, tmp_path: Path, name: str) -> None:
    content = _receipt(run)
    (run / name).rename(tmp_path / "elsewhere")
    (run / name).symlink_to(tmp_path / "elsewhere")
    wrong = "sub/two\nlines" if name == "sub" else MANIFEST_PATH.decode()
    assert _problem(content, run) == wrong
    assert _by_script(content, run).returncode == 1


def test_what_a_receipt_does_not_cover_is_counted(run: Path) -> None:
    content = _receipt(run)
    (run / "sub" / "late.tif").write_bytes(b"late")
    (run / "link").symlink_to("sub")
    (run / ".exlab-wizard" / "wizard.host.log").write_bytes(b"rewritten by programs")
    check = check_run(read_receipt(content).receipt, run)
    assert (check.wrong, check.beside) == ([], 2)
    said = _by_script(content, run)
    assert (said.returncode, said.stderr) == (0, "")
    assert ", 2 beside them, " in said.stdout
    (run / "sub" / "late.tif").unlink()
    (run / "link").unlink()
    assert check_run(read_receipt(content).receipt, run).beside == 0
    assert ", 0 beside them, " in _by_script(content, run).stdout


@pytest.mark.parametrize(
    "copies",
    [
        [],
        [{"destination": "archive"}],
        [{"grade": "E0", "hashed": 0, "matched": 0}],
        [{"grade": "E3"}],
        [{"hashed": 3}],
        [{"matched": 3}],
        [{"expected": 0, "hashed": 0, "matched": 0}],
    ],
)
def test_a_receipt_without_a_proven_copy_at_its_destination(run: Path, copies: list[dict[str, Any]]) -> None:
    proven = read_receipt(_receipt(run)).receipt.copies[0]
    content = _receipt(run, copies=[msgspec.structs.replace(proven, **changed) for changed in copies])
    assert _problem(content, run) == "copies"
    said = _by_script(content, run)
    assert (said.returncode, said.stderr) == (1, "copies: none at the receipt's destination was read back whole\n")
    more = _receipt(run, copies=[*(msgspec.structs.replace(proven, **changed) for changed in copies), proven])
    assert _problem(more, run) == ""
    assert _by_script(more, run).returncode == 0


def test_nothing_that_is_printed_steers_the_terminal(run: Path) -> None:
    evil = "\x1b]0;owned\x07\n\u202egnp"
    said = _by_script(_receipt(run, run=evil), run)
    assert said.returncode == 0
    wrong = _by_script(_receipt(run, run=evil, file_count=5), run)
    (run / "sub/two\nlines").unlink()
    missing = _by_script(_receipt(run), run)
    for text in (said.stdout, wrong.stderr, missing.stderr):
        assert text.count("\n") == 1
        assert text.rstrip("\n").isprintable()


def test_another_manifest_and_counts_that_were_signed_wrong(run: Path) -> None:
    content = _receipt(run)
    for field in ("file_count", "byte_count"):
        wrong = _receipt(run, **{field: 5})
        assert _problem(wrong, run) == field
        assert _by_script(wrong, run).stderr.startswith(f"{field}: ")
    (run / MANIFEST_PATH.decode()).write_bytes(b"")
    assert _problem(content, run) == "manifest_sha256"
    assert _by_script(content, run).stderr.startswith("manifest_sha256: ")


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b"{}", b"[" * 100_000, b'{"layout": 1e999}'])
def test_what_is_no_receipt(run: Path, content: bytes) -> None:
    assert _problem(content, run) == "format"


def test_the_script_needs_only_the_standard_library_and_cryptography() -> None:
    text = VERIFIER.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 115
    roots = {line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert roots - set(sys.stdlib_module_names) == {"cryptography"}


def test_a_name_that_is_no_destinations() -> None:
    assert receipt_file_name("nas-2_b") == "receipt.nas-2_b.json"
    with pytest.raises(ValueError, match="no destination's name"):
        receipt_file_name("../nas")
