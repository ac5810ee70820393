"""Every scene by the name of its capture."""

from __future__ import annotations

from tests.unit.transfer.capture import rclone_scenes, rsync_scenes, ssh_scenes
from tests.unit.transfer.capture.scene import name_of

SCENES = {name_of(scene): scene for scene in (*rsync_scenes.SCENES, *ssh_scenes.SCENES, *rclone_scenes.SCENES)}
