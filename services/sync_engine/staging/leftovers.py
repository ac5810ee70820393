"""What lies in a cleared run's folder beside its cache. Blocking; changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

from libs.run_tree.beneath import names_beneath
from libs.run_tree.find_runs import CACHE_FOLDER_NAME
from services.sync_engine.transfer.system_error import shown, words_of


def first_leftover(folder: Path) -> str:
    """The first name there that is no folder, by its path in the run; empty: there is none, or no such folder. Folders
    without files hold nothing that could be lost. OSError."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            with names_beneath(folder / below) as entries:
                found = sorted((e.name, e.is_dir(follow_symlinks=False)) for e in entries)
        except (FileNotFoundError, NotADirectoryError):
            # It vanished meanwhile.
            continue
        inside = [(name, is_folder) for name, is_folder in found if below or name != CACHE_FOLDER_NAME]
        for name, is_folder in inside:
            if not is_folder:
                return shown(os.fsencode(f"{below}{name}"))
        waiting += [f"{below}{name}/" for name, _ in reversed(inside)]
    return ""


def leftover_problem(folder: Path) -> str:
    """One plain sentence about what lies there; empty: nothing does."""
    try:
        first = first_leftover(folder)
    except OSError as error:
        return f"Whether anything appeared after the run was cleared can't be seen: {words_of(error)}."
    if not first:
        return ""
    return (
        f"{first} appeared after the run was cleared; queued once more, the run brings it and can be cleared again,"
        " unless it equals what was proven: clearing the run tells."
    )
