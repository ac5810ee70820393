"""Moving files of a remote to other names of it, never over what is seen there right before, unless that is meant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from operator import attrgetter

from services.sync_engine.transfer.rclone_calls import FileCall, call_for_each
from services.sync_engine.transfer.rclone_daemon import LOCKED, RcloneDaemon

FEW_AT_ONCE = 4
"""Calls in rclone's hands while names go that somebody else may give anew: as many may still be carried out when this
engine was suspended, and another has finished its job."""
_NEVER_OVER = {"IgnoreExisting": True}
_OVER = {"IgnoreTimes": True}
# After a copy within the remote rclone looks at what lies there, and deletes what has another size: by then it may be
# what another engine brought. The verification has the last word.
_AND_STAYS = {"IgnoreSize": True}
# Every file was sent before: a server that is busy with a folder's names was seen to miss one of them for a moment.
_PASSING = re.compile(rf"{LOCKED.pattern}|\bobject not found\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WholeFile:
    """Where it lies and where it goes. `size`, since backends without a move copy it; on these it goes `over` what is
    there."""

    source: bytes
    target: bytes
    size: int
    over: bool = False


def land_files(daemon: RcloneDaemon, fs: str, files: Sequence[WholeFile]) -> None:
    """Out of the attempt's own folder, which whoever takes the job over removes first."""

    def move(file: WholeFile, held: ExitStack) -> Mapping[str, object]:
        # Copies tell nothing meanwhile.
        held.enter_context(daemon.control.quiet(file.size))
        return _between(fs, file.source, file.target, {**(_OVER if file.over else _NEVER_OVER), **_AND_STAYS})

    moving: FileCall[WholeFile] = FileCall(
        "moving", "operations/movefile", move, attrgetter("source"), attrgetter("size"), _PASSING
    )
    call_for_each(daemon, moving, files)


def take_away(daemon: RcloneDaemon, fs: str, pairs: Sequence[tuple[bytes, bytes]]) -> None:
    """Files with names that another engine may have given by now: each is a call of its own, and whose job it is is
    asked before each."""
    _one_by_one(daemon, "moving", "operations/movefile", fs, pairs)


def copy_aside(daemon: RcloneDaemon, fs: str, pairs: Sequence[tuple[bytes, bytes]]) -> None:
    """As `take_away`, but the files stay."""
    _one_by_one(daemon, "copying", "operations/copyfile", fs, pairs)


def copy_over(daemon: RcloneDaemon, doing: str, path: bytes, source: Mapping[str, str], fs: str, target: str) -> None:
    """One file over what is there: equal size and time would otherwise pass for equal content. `path` is for the words
    of a failure."""
    # Of what is sent there the size alone tells, with some full storages, that it isn't whole.
    config = {**_OVER, **_AND_STAYS} if source["srcFs"] == fs else _OVER
    daemon.told(doing, "operations/copyfile", [path], **source, dstFs=fs, dstRemote=target, _config=config)


def _one_by_one(daemon: RcloneDaemon, doing: str, command: str, fs: str, pairs: Sequence[tuple[bytes, bytes]]) -> None:
    def do(pair: tuple[bytes, bytes]) -> None:
        daemon.told(doing, command, [pair[0]], _PASSING, **_between(fs, *pair, _NEVER_OVER))

    daemon.attend(pairs, do, workers=FEW_AT_ONCE)


def _between(fs: str, source: bytes, target: bytes, config: Mapping[str, bool]) -> Mapping[str, object]:
    return {
        "srcFs": fs,
        "srcRemote": source.decode(),
        "dstFs": fs,
        "dstRemote": target.decode(),
        "_config": config,
    }
