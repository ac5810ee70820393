"""Which runs lie below an equipment's folder (SPEC §1). No symlink is followed; only the equipment's own folder may be
one that stays inside its root. `local_root` is real.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

from libs.run_tree.beneath import SymlinkOnTheWayError, names_beneath, real_place
from libs.run_tree.run_path import PathOutsideRootError, RunKind, RunPath

CACHE_FOLDER_NAME = ".exlab-wizard"


def find_projects(local_root: Path, equipment_id: str) -> list[str]:
    """Names of the equipment's project folders, sorted; empty when the equipment has no folder. OSError as the system
    says."""
    return _folders(_equipment_folder(local_root, equipment_id))


def find_runs(local_root: Path, equipment_id: str, project: str | None = None) -> Iterator[RunPath]:
    """Every run of the equipment, or of one of its projects, sorted: those straight under a project first.

    OSError when a folder can't be listed. A folder that vanishes meanwhile holds no runs.
    """
    equipment = _equipment_folder(local_root, equipment_id)
    for name in _folders(equipment):
        if project is not None and name != project:
            continue
        folder = equipment / name
        below = _folders(folder)
        for group in ("", *(kind.group for kind in RunKind if kind.group in below)):
            for leaf in _folders(folder / group) if group else below:
                if RunKind.of_leaf(leaf) is not None:
                    yield RunPath(equipment_id, name, group, leaf)


def _equipment_folder(local_root: Path, equipment_id: str) -> Path:
    try:
        return real_place(local_root, equipment_id)
    except PathOutsideRootError as error:
        raise SymlinkOnTheWayError(errno.ELOOP, "it leads out of its root", equipment_id) from error


def _folders(folder: Path) -> list[str]:
    try:
        with names_beneath(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in names if name != CACHE_FOLDER_NAME)
