"""Where a run that a caller names lies on this machine. Nothing outside the configured roots is ever reached."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from libs.run_tree.run_path import PathOutsideRootError, RunPath, RunPathError, resolve_inside
from libs.service_kit.equipment_settings import EquipmentSettings
from services.sync_engine.errors import EquipmentNotConfiguredError, PathOutsideRootsError, RunNotFoundError


@dataclass(frozen=True, slots=True)
class LocatedRun:
    """A run folder that exists. `folder` is its real place, symlinks inside the root resolved."""

    path: RunPath
    equipment: EquipmentSettings
    folder: Path

    @property
    def identity(self) -> str:
        return str(self.path)


class RunLocator:
    """Finds runs of the configured equipment."""

    def __init__(self, equipment: Sequence[EquipmentSettings]) -> None:
        self._equipment = {e.id: e for e in equipment}

    @property
    def all_equipment(self) -> Sequence[EquipmentSettings]:
        return tuple(self._equipment.values())

    def equipment(self, equipment_id: str) -> EquipmentSettings:
        found = self._equipment.get(equipment_id)
        if found is None:
            raise EquipmentNotConfiguredError(
                f"equipment {equipment_id!r} is not configured here", metadata={"equipment_id": equipment_id}
            )
        return found

    def parse(self, run: str) -> RunPath:
        """PathOutsideRootsError for a text that can't be a run's path."""
        try:
            return RunPath.parse(run)
        except RunPathError as error:
            raise PathOutsideRootsError(str(error), metadata={"path": run}) from error

    def locate(self, run: str) -> LocatedRun:
        """The run's folder; touches the disk. RunNotFoundError when there is none."""
        path = self.parse(run)
        equipment = self.equipment(path.equipment_id)
        folder = self._resolve(equipment.local_root, run)
        if not folder.is_dir():
            raise RunNotFoundError(f"there is no run {run}", metadata={"run": run})
        return LocatedRun(path, equipment, folder)

    def resolve_source(self, folder: str) -> Path:
        """An existing folder inside any configured root, for AdoptRun."""
        if not os.path.isabs(folder):
            raise PathOutsideRootsError(f"{folder!r} is not an absolute path", metadata={"path": folder})
        for equipment in self._equipment.values():
            root = os.path.realpath(equipment.local_root)
            resolved = os.path.realpath(folder)
            if resolved != root and os.path.commonpath((root, resolved)) == root:
                if not os.path.isdir(resolved):
                    raise RunNotFoundError(f"there is no folder {folder}", metadata={"run": folder})
                return Path(resolved)
        raise PathOutsideRootsError(f"{folder!r} lies in no configured local_root", metadata={"path": folder})

    def _resolve(self, root: Path, relative: str) -> Path:
        try:
            return resolve_inside(root, relative)
        except PathOutsideRootError as error:
            raise PathOutsideRootsError(str(error), metadata={"path": relative}) from error
