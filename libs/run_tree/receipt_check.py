"""Compares a run's folder with its receipt, wherever it lies: needs neither a service nor a log. Blocking."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from libs.run_tree.beneath import SymlinkOnTheWayError, open_to_read
from libs.run_tree.manifest import MANIFEST_PATH, ManifestEntry, ManifestError, is_changing_file, read_manifest
from libs.run_tree.receipt import Receipt

_GRADES = ("E4", "E5")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """What doesn't fit: a field of the receipt, or a file relative to the run."""

    what: str
    problem: str


@dataclass(frozen=True, slots=True)
class RunCheck:
    """`beside` is how many files and symlinks lie in the run that the receipt doesn't cover, counted only when nothing
    is wrong. Files that programs rewrite after the acquisition are not among them."""

    wrong: Sequence[Mismatch]
    beside: int = 0


def check_run(receipt: Receipt, run_folder: Path) -> RunCheck:
    """Whether the folder holds what the receipt vouches for. No symlink below it is followed. OSError when it can't be
    opened."""
    root = os.open(run_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        wrong = [*_wrong_copies(receipt), *_wrong_files(receipt, root)]
        return RunCheck(wrong, 0 if wrong else _count_names(root) - receipt.file_count)
    finally:
        os.close(root)


def _wrong_copies(receipt: Receipt) -> Sequence[Mismatch]:
    copies = (c for c in receipt.copies if c.destination == receipt.destination and c.grade in _GRADES)
    if any(receipt.file_count == copy.expected == copy.hashed == copy.matched > 0 for copy in copies):
        return ()
    return [Mismatch("copies", f"none at {receipt.destination} was read back whole")]


def _wrong_files(receipt: Receipt, root: int) -> Sequence[Mismatch]:
    try:
        manifest = open(open_to_read(MANIFEST_PATH, dir_fd=root), "rb")  # noqa: SIM115 -- the next lines close it
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
                size, problem = _look_at(root, entry)
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


def _look_at(root: int, entry: ManifestEntry) -> tuple[int, str]:
    """Size, and what is wrong (empty: nothing)."""
    try:
        descriptor = open_to_read(entry.path, dir_fd=root)
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return 0, "is no file"
            same = hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
    except FileNotFoundError:
        return 0, "is missing"
    except SymlinkOnTheWayError:
        return 0, "is a symlink, or lies behind one"
    except OSError as error:
        return 0, f"can't be read: {error.strerror}"
    except ValueError:
        return 0, "is no name of a file: it holds a NUL character"
    return status.st_size, "" if same else "has another content"


def _count_names(root: int) -> int:
    """Every name below the folder that is no folder, but for the changing files'."""
    count = 0
    for place, folders, names, folder in os.fwalk(b".", dir_fd=root):
        names += [name for name in folders if stat.S_ISLNK(os.lstat(name, dir_fd=folder).st_mode)]
        count += sum(not is_changing_file(os.path.join(place, name).removeprefix(b"./")) for name in names)
    return count
