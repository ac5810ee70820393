"""A run's folders at a remote, empty ones too, with their times."""

from __future__ import annotations

import os
from collections.abc import Sequence

from services.sync_engine.transfer.private_folder import private_folder
from services.sync_engine.transfer.rclone_daemon import RcloneDaemon
from services.sync_engine.transfer.spilled_list import in_portions
from services.sync_engine.transfer.transport import SourceEntry

_TOGETHER = 2000
# With several listings at once, 1.75's SMB backend dials within a context that has ended, and waits longer each time:
# 7 folders took more than a minute instead of 0.2 s. And none of the files there matters.
# And of two names that are one letter in two Unicode forms, it would make one alone.
_FOLDERS_ONLY = {"Checkers": 1, "NoTraverse": True, "NoUnicodeNormalization": True}


def settle_folders(daemon: RcloneDaemon, place: str, folders: Sequence[SourceEntry]) -> None:
    """In the run's folder `place`, made too. They are copied from trees of empty folders, portion by portion."""
    # Those below first: what is made in a folder changes its time.
    for portion in in_portions(reversed(folders), _TOGETHER) if folders else [[]]:
        with private_folder() as private:
            tree = os.path.join(os.fsencode(private), b"tree")
            os.mkdir(tree)
            for folder in portion:
                os.makedirs(tree + b"/" + folder.path, exist_ok=True)
            for folder in portion:
                os.utime(tree + b"/" + folder.path, ns=(folder.mtime_ns, folder.mtime_ns))
            daemon.must(
                "making folders",
                "sync/copy",
                srcFs={"type": "local", "_root": os.fsdecode(tree), "encoding": "Raw"},
                dstFs=place,
                createEmptySrcDirs=True,
                _config=_FOLDERS_ONLY,
            )
