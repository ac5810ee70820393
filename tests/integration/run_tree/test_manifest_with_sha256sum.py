"""The real sha256sum accepts our manifests, and we read its."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from libs.run_tree.manifest import ManifestEntry, format_manifest, parse_manifest

NAMES = [
    b"plain.txt",
    b"with space.txt",
    b" leading and trailing ",
    b"two\nlines",
    b"carriage\rreturn",
    b"ends in\r",
    b"back\\slash",
    b"back\\nslash and\nnewline",
    b"\\leading backslash",
    b"-",
    b"--help",
    b"*starred",
    b"#hash",
    "é·光.tif".encode(),
    "e\u0301.tif".encode(),
    b"\xff\xfe not utf-8",
    b"quote'and\"quote",
    b"x" * 255,
    b"sub/folder/-",
]


def lay_out(folder: Path) -> list[ManifestEntry]:
    entries = []
    for number, name in enumerate(NAMES):
        place = os.path.join(os.fsencode(folder), name)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        content = b"%d" % number
        with open(place, "wb") as stream:
            stream.write(content)
        entries.append(ManifestEntry(name, hashlib.sha256(content).hexdigest()))
    return entries


def test_sha256sum_checks_every_name(tmp_path: Path) -> None:
    data = tmp_path / "run"
    data.mkdir()
    entries = lay_out(data)
    manifest = tmp_path / "checksums.sha256"
    manifest.write_bytes(format_manifest(entries))
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", "--quiet", str(manifest)], cwd=data, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_sha256sum_notices_a_change_behind_every_name(tmp_path: Path) -> None:
    data = tmp_path / "run"
    data.mkdir()
    entries = lay_out(data)
    manifest = tmp_path / "checksums.sha256"
    manifest.write_bytes(format_manifest(entries))
    for name in NAMES:
        with open(os.path.join(os.fsencode(data), name), "ab") as stream:
            stream.write(b"!")
    done = subprocess.run(["sha256sum", "-c", str(manifest)], cwd=data, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stdout.count(b": FAILED\n") == len(NAMES)


def test_what_sha256sum_writes_is_read(tmp_path: Path) -> None:
    entries = lay_out(tmp_path)
    names = [b"./-" if name == b"-" else name for name in NAMES]
    written = subprocess.run(
        [b"sha256sum", b"--", *names], cwd=os.fsencode(tmp_path), capture_output=True, check=True
    ).stdout
    assert parse_manifest(written) == entries
