"""What a run's folder holds beside the files of its manifest: symlinks, empty folders, and the cache's own records."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from libs.run_tree.atomic_file import NotAPlainFileError, read_in_folder
from libs.run_tree.beneath import SymlinkOnTheWayError, folder_beneath, link_beneath, names_beneath
from libs.run_tree.manifest import CACHE_FOLDER

_RECORDS = ("creation.json", "readme_fields.json", "ingest.json")


@dataclass(frozen=True, slots=True)
class Unlisted:
    """Paths are relative to the run, for display, and sorted. `symlinks` with their targets; `records` by path, as they
    lie there: programs rewrite them, so nothing vouches for their content."""

    symlinks: Mapping[str, str]
    empty_folders: Sequence[str]
    records: Mapping[str, bytes]


def find_unlisted(run_folder: Path) -> Unlisted:
    """The cache folder's own links and folders are left out. OSError."""
    symlinks: dict[str, str] = {}
    empty: list[str] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with names_beneath(run_folder / folder) as entries:
            names = list(entries)
            if not names and folder:
                empty.append(_shown(folder))
            for name in names:
                path = f"{folder}/{name.name}" if folder else name.name
                if name.is_symlink():
                    target, _ = link_beneath(run_folder / path)
                    symlinks[_shown(path)] = target.decode(errors="replace")
                elif name.is_dir(follow_symlinks=False) and os.fsencode(path) != CACHE_FOLDER:
                    waiting.append(path)
    return Unlisted(dict(sorted(symlinks.items())), sorted(empty), _records(run_folder))


def _records(run_folder: Path) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    cache = os.fsdecode(CACHE_FOLDER)
    with (
        suppress(FileNotFoundError, NotADirectoryError, SymlinkOnTheWayError),
        folder_beneath(run_folder / cache) as fd,
    ):
        for name in _RECORDS:
            path = f"{cache}/{name}"
            with suppress(FileNotFoundError, NotAPlainFileError):
                found[path] = read_in_folder(fd, run_folder / path)
    return found


def _shown(path: str) -> str:
    return os.fsencode(path).decode(errors="replace")
