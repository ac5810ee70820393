"""Compares a run's folder with its receipt, wherever it lies: needs neither a service nor a log. Blocking."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from libs.run_tree.manifest import MANIFEST_PATH, ManifestEntry, ManifestError, read_manifest
from libs.run_tree.receipt import Receipt

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Mismatch:
    """What doesn't fit: a field of the receipt, or a file relative to the run."""

    what: str
    problem: str


def check_run(receipt: Receipt, run_folder: Path) -> Sequence[Mismatch]:
    """Empty when the folder holds exactly what the receipt vouches for. Files beside those don't count."""
    try:
        manifest = (run_folder / MANIFEST_PATH.decode()).open("rb")
    except OSError as error:
        return [Mismatch(MANIFEST_PATH.decode(), f"can't be read: {error.strerror}")]
    found: list[Mismatch] = []
    files = sizes = 0
    with manifest:
        if hashlib.file_digest(manifest, "sha256").hexdigest() != receipt.manifest_sha256:
            return [Mismatch("manifest_sha256", f"is not that of {MANIFEST_PATH.decode()}")]
        manifest.seek(0)
        try:
            for entry in read_manifest(manifest):
                size, problem = _look_at(run_folder, entry)
                files += 1
                sizes += size
                if problem:
                    found.append(Mismatch(entry.path.decode(errors="replace"), problem))
        except ManifestError as error:
            return [Mismatch(MANIFEST_PATH.decode(), str(error))]
    if files != receipt.file_count:
        found.append(Mismatch("file_count", f"is {receipt.file_count}; the manifest lists {files} files"))
    if not found and sizes != receipt.byte_count:
        found.append(Mismatch("byte_count", f"is {receipt.byte_count}; the files hold {sizes} bytes"))
    return found


def _look_at(run_folder: Path, entry: ManifestEntry) -> tuple[int, str]:
    """Size, and what is wrong (empty: nothing)."""
    try:
        descriptor = os.open(os.fsencode(run_folder) + b"/" + entry.path, _READ)
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return 0, "is no file"
            same = hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
    except FileNotFoundError:
        return 0, "is missing"
    except OSError as error:
        return 0, f"can't be read: {error.strerror}"
    return status.st_size, "" if same else "has another content"
