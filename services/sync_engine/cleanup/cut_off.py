"""What a crash left set aside in the middle of a deletion goes back under its name: nobody knows any more whether it
may be deleted. Blocking."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from libs.run_tree.beneath import folder_beneath
from libs.run_tree.manifest import CACHE_FOLDER
from services.sync_engine.cleanup.deletion import Remaining
from services.sync_engine.cleanup.set_aside import hash_of_path, kept_aside, path_set_aside, put_back
from services.sync_engine.transfer.system_error import words_of
from services.sync_engine.transfer.transport import CopiedFile


def put_back_what_was_cut_off(run_folder: Path, ticketed: Sequence[CopiedFile]) -> Sequence[Remaining]:
    """The files that lie aside still, because their names are taken by now or the system refused."""
    kept: list[Remaining] = []
    paths = cache(lambda: {hash_of_path(file.path): file.path for file in ticketed})
    try:
        with folder_beneath(run_folder) as root, folder_beneath(CACHE_FOLDER, dir_fd=root) as opened:
            for aside in sorted(map(os.fsencode, os.listdir(opened))):
                if (path := path_set_aside(aside, paths)) is not None and (why := _back(root, opened, aside, path)):
                    kept.append(Remaining(path, why))
    except FileNotFoundError:
        # The cache folder goes last of all: without it nothing is left.
        return kept
    except OSError as error:
        kept.append(Remaining(CACHE_FOLDER, f"it can't be looked at: {words_of(error)}"))
    return kept


def _back(root: int, opened: int, aside: bytes, path: bytes) -> str:
    folder, _, name = path.rpartition(b"/")
    try:
        with folder_beneath(folder or b".", dir_fd=root) as parent:
            put_back(opened, aside, parent, name)
            os.fsync(parent)
    except OSError as error:
        return kept_aside(aside, error)
    return ""
