"""Moving files of a remote to other names of it, never over what is seen there right before."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from operator import itemgetter

from services.sync_engine.transfer.rclone_calls import FileCall, call_for_each
from services.sync_engine.transfer.rclone_daemon import LOCKED, RcloneDaemon

_NEVER_OVER = {"IgnoreExisting": True}
# Every file was sent before: a server that is busy with a folder's names was seen to miss one of them for a moment.
_PASSING = re.compile(rf"{LOCKED.pattern}|\bobject not found\b", re.IGNORECASE)


def move_files(daemon: RcloneDaemon, fs: str, files: Sequence[tuple[bytes, bytes, int]]) -> None:
    """Of each file the name, the new name, and the size where it matters how long a copy of it takes."""

    def move(file: tuple[bytes, bytes, int], held: ExitStack) -> Mapping[str, object]:
        source, target, size = file
        # Backends without a move copy the object, and tell nothing meanwhile.
        held.enter_context(daemon.control.quiet(size))
        return {
            "srcFs": fs,
            "srcRemote": source.decode(),
            "dstFs": fs,
            "dstRemote": target.decode(),
            "_config": _NEVER_OVER,
        }

    moving: FileCall[tuple[bytes, bytes, int]] = FileCall(
        "moving", "operations/movefile", move, itemgetter(0), itemgetter(2), _PASSING
    )
    call_for_each(daemon, moving, files)
