"""Which files are data, and the manifest's text (SPEC §4, FORMATS §7)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.run_tree.manifest import (
    ManifestEntry,
    ManifestError,
    format_manifest,
    is_changing_file,
    never_travels,
    parse_manifest,
)

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "path",
    [
        b".exlab-wizard/creation.json",
        b".exlab-wizard/ingest.json",
        b".exlab-wizard/readme_fields.json",
        b".exlab-wizard/wizard.lab-pc-7.log",
        b".exlab-wizard/checksums.sha256",
        b".exlab-wizard/receipt.json",
        b".exlab-wizard/receipt-2.json",
        b".exlab-wizard/creation.json.lock",
        b".exlab-wizard/creation.json.1f2e3d.tmp",
    ],
)
def test_changing_files(path: bytes) -> None:
    assert is_changing_file(path)


@pytest.mark.parametrize(
    "path",
    [
        b"creation.json",
        b"data/creation.json",
        b"data/.exlab-wizard/creation.json",
        b".exlab-wizard/sub/creation.json",
        b".exlab-wizard/notes.txt",
        b".exlab-wizard/creation.json.bak",
        b".exlab-wizard/x.tmp",
        b"x.tmp",
        b"data/creation.json.lock",
        b"a.1f2e3d.tmp",
        b".exlab-wizard-2/creation.json",
        b".exlab-wizard",
    ],
)
def test_everything_else_is_data(path: bytes) -> None:
    assert not is_changing_file(path)
    assert not never_travels(path)


def test_locks_and_temporaries_never_travel() -> None:
    assert never_travels(b".exlab-wizard/creation.json.lock")
    assert never_travels(b".exlab-wizard/creation.json.1f2e3d.tmp")
    assert not never_travels(b".exlab-wizard/creation.json")


def test_the_text_is_sorted_by_code_point_and_escaped() -> None:
    entries = [
        ManifestEntry(path, DIGEST)
        for path in ("Z", "a", "é", "\uffff", "\U0001f52c", "two\nlines", "back\\slash", "-", "b c")
        for path in [path.encode()]
    ]
    lines = format_manifest(entries).split(b"\n")
    names = [line.partition(b"  ")[2] for line in lines[:-1]]
    assert names == [
        b"./-",
        b"Z",
        b"a",
        b"b c",
        b"back\\\\slash",
        b"two\\nlines",
        "é".encode(),
        "\uffff".encode(),
        "\U0001f52c".encode(),
    ]
    assert lines[4].startswith(b"\\" + DIGEST.encode())
    assert lines[-1] == b""


def test_nothing_makes_an_empty_manifest() -> None:
    assert format_manifest([]) == b""
    assert parse_manifest(b"") == []


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        DIGEST.encode() + b"  a",
        DIGEST.encode() + b" a\n",
        DIGEST.upper().encode() + b"  a\n",
        b"\\" + DIGEST.encode() + b"  a\\x\n",
        b"\\" + DIGEST.encode() + b"  a\\\n",
        b"\n",
        DIGEST.encode() + b"  ./a.tif\n",
        DIGEST.encode() + b"  a.tif/\n",
        DIGEST.encode() + b"  sub//a.tif\n",
        DIGEST.encode() + b"  /a.tif\n",
        DIGEST.encode() + b"  sub/../a.tif\n",
    ],
)
def test_what_is_no_manifest_names_its_line(content: bytes) -> None:
    with pytest.raises(ManifestError, match="Line 1"):
        parse_manifest(content)


_names = st.binary(min_size=1, max_size=30).filter(lambda name: not {*b"/\0"} & {*name} and name not in (b".", b".."))
_paths = st.lists(_names, min_size=1, max_size=3).map(b"/".join)


@given(st.dictionaries(_paths, st.binary(min_size=32, max_size=32).map(bytes.hex), max_size=20))
def test_parsing_gives_back_what_was_formatted(files: dict[bytes, str]) -> None:
    parsed = parse_manifest(format_manifest(ManifestEntry(path, digest) for path, digest in files.items()))
    assert {entry.path: entry.sha256 for entry in parsed} == files
    assert [entry.path for entry in parsed] == sorted(files)
