"""Where a run lies at its storage, as people and `ingest.json` name the place. For display only."""

from __future__ import annotations

from libs.run_tree.run_path import RunPath
from libs.service_kit.equipment_settings import (
    EquipmentSettings,
    MountedTransportSettings,
    RcloneTransportSettings,
    RsyncSshTransportSettings,
)


def nas_path(equipment: EquipmentSettings, run: RunPath) -> str:
    """Below `nas_root` where one is configured, else below the first required destination."""
    if equipment.nas_root:
        return f"{equipment.nas_root}/{run}"
    place = next(d for d in equipment.all_destinations() if d.required).transport
    match place:
        case MountedTransportSettings():
            return f"{place.path}/{run.below_equipment}"
        case RcloneTransportSettings():
            return f"{place.rclone_remote}:{place.rclone_remote_path}/{run.below_equipment}"
        case RsyncSshTransportSettings():
            return f"{place.ssh_target}:{place.remote_path}/{run.below_equipment}"
