"""Where a run that a caller names lies on this machine. Nothing outside the configured roots is ever reached."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from libs.run_tree.beneath import is_folder_beneath, real_place
from libs.run_tree.run_path import PathOutsideRootError, RunPath, RunPathError
from libs.service_kit.equipment_settings import EquipmentSettings
from services.sync_engine.errors import EquipmentNotConfiguredError, PathOutsideRootsError, RunNotFoundError


@dataclass(frozen=True, slots=True)
class LocatedRun:
    """A run folder that exists. `folder` is its real place, symlinks inside the root resolved; `root` is the folder
    that its path is relative to, real too: the equipment's `local_root`, or the staging root."""

    path: RunPath
    equipment: EquipmentSettings
    root: Path
    folder: Path
    is_staged: bool

    @property
    def identity(self) -> str:
        return str(self.path)


class RunLocator:
    """Finds runs of the configured equipment, in its `local_root` first, then below the staging root."""

    def __init__(self, equipment: Sequence[EquipmentSettings], staging_root: Path | None = None) -> None:
        self._equipment = {e.id: e for e in equipment}
        self._staging_root = staging_root

    @property
    def staging_root(self) -> Path | None:
        """Where instruments push their runs; None when staging is off."""
        return self._staging_root

    def roots_of(self, equipment: EquipmentSettings) -> Sequence[Path]:
        """The folders that runs of the equipment lie below, real; touches the disk."""
        roots = (equipment.local_root,) if self._staging_root is None else (equipment.local_root, self._staging_root)
        return tuple(dict.fromkeys(Path(os.path.realpath(root)) for root in roots))

    @property
    def all_equipment(self) -> Sequence[EquipmentSettings]:
        return tuple(self._equipment.values())

    def equipment(self, equipment_id: str, *, was_there: bool = False) -> EquipmentSettings:
        """EquipmentNotConfiguredError. `was_there`: the log knows runs of it."""
        found = self._equipment.get(equipment_id)
        if found is None:
            said = f"equipment {equipment_id!r} is not configured here"
            if was_there:
                said += " any more, so its copies can't be reached. What was proven is kept in the log"
            raise EquipmentNotConfiguredError(said, metadata={"equipment_id": equipment_id})
        return found

    def is_configured(self, equipment_id: str) -> bool:
        return equipment_id in self._equipment

    def equipment_folder(self, equipment_id: str) -> Path:
        """Where the equipment's folder lies in its `local_root`, real; touches the disk."""
        return self._resolve(Path(os.path.realpath(self.equipment(equipment_id).local_root)), equipment_id)

    def why_away(self, equipment_id: str) -> str:
        """Why no run of the equipment can be there at all, empty when its folder is; touches the disk."""
        folder = self.equipment_folder(equipment_id)
        if is_folder_beneath(folder):
            return ""
        return f"{folder} is not there: local_root is not mounted, or its path is wrong"

    def parse(self, run: str) -> RunPath:
        """PathOutsideRootsError for a text that can't be a run's path."""
        try:
            return RunPath.parse(run)
        except RunPathError as error:
            raise PathOutsideRootsError(str(error), run) from error

    def locate(self, run: str) -> LocatedRun:
        """The run's folder; touches the disk. RunNotFoundError when there is none."""
        path = self.parse(run)
        equipment = self.equipment(path.equipment_id)
        for root in self.roots_of(equipment):
            folder = self._resolve(root, run)
            if is_folder_beneath(folder):
                return LocatedRun(path, equipment, root, folder, self._is_staged(folder))
        raise RunNotFoundError(f"there is no run {run}", metadata={"run": run})

    def resolve_source(self, folder: str) -> Path:
        """An existing folder inside any configured root, for AdoptRun."""
        if not os.path.isabs(folder):
            raise PathOutsideRootsError(f"{folder!r} is not an absolute path", folder, "source_folder")
        roots = dict.fromkeys(root for equipment in self._equipment.values() for root in self.roots_of(equipment))
        for root in map(os.fspath, roots):
            try:
                resolved = os.path.realpath(folder)
            except OSError as error:
                # A folder on the way became a symlink, or a symlink a folder, between two looks.
                problem = f"{folder!r} can't be followed: {error.strerror}"
                raise PathOutsideRootsError(problem, folder, "source_folder") from error
            if resolved != root and os.path.commonpath((root, resolved)) == root:
                if not is_folder_beneath(resolved):
                    raise RunNotFoundError(f"there is no folder {folder}", metadata={"run": folder})
                return Path(resolved)
        raise PathOutsideRootsError(
            f"{folder!r} lies in no configured local_root or staging_root", folder, "source_folder"
        )

    def _is_staged(self, folder: Path) -> bool:
        return self._staging_root is not None and folder.is_relative_to(os.path.realpath(self._staging_root))

    def _resolve(self, root: Path, relative: str) -> Path:
        try:
            return real_place(root, relative)
        except PathOutsideRootError as error:
            raise PathOutsideRootsError(str(error), relative) from error
