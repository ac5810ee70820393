"""Moving files of a remote to other names of it, never over what is seen there right before."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from operator import itemgetter

from services.sync_engine.transfer.rclone_calls import FileCall, call_for_each
from services.sync_engine.transfer.rclone_daemon import LOCKED, RcloneDaemon

FEW_AT_ONCE = 4
"""Calls in rclone's hands while names go that somebody else may give anew: as many may still be carried out when this
engine was suspended, and another has finished its job."""
_NEVER_OVER = {"IgnoreExisting": True}
# Every file was sent before: a server that is busy with a folder's names was seen to miss one of them for a moment.
_PASSING = re.compile(rf"{LOCKED.pattern}|\bobject not found\b", re.IGNORECASE)


def land_files(daemon: RcloneDaemon, fs: str, files: Sequence[tuple[bytes, bytes, int]]) -> None:
    """Out of the attempt's own folder, which whoever takes the job over removes first. Of each file the name, the new
    name, and the size: backends without a move copy it."""

    def move(file: tuple[bytes, bytes, int], held: ExitStack) -> Mapping[str, object]:
        source, target, size = file
        # They tell nothing meanwhile.
        held.enter_context(daemon.control.quiet(size))
        return _move(fs, source, target)

    moving: FileCall[tuple[bytes, bytes, int]] = FileCall(
        "moving", "operations/movefile", move, itemgetter(0), itemgetter(2), _PASSING
    )
    call_for_each(daemon, moving, files)


def take_away(daemon: RcloneDaemon, fs: str, pairs: Sequence[tuple[bytes, bytes]]) -> None:
    """Files with names that another engine may have given by now: each is a call of its own, and whose job it is is
    asked before each."""

    def move(pair: tuple[bytes, bytes]) -> None:
        daemon.told("moving", "operations/movefile", [pair[0]], _PASSING, **_move(fs, *pair))

    daemon.attend(pairs, move, workers=FEW_AT_ONCE)


def _move(fs: str, source: bytes, target: bytes) -> Mapping[str, object]:
    return {
        "srcFs": fs,
        "srcRemote": source.decode(),
        "dstFs": fs,
        "dstRemote": target.decode(),
        "_config": _NEVER_OVER,
    }
