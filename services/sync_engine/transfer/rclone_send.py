"""One list of files through rclone, with its progress. It is given each file by its open descriptor, so that it doesn't
matter what has the name by then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from operator import attrgetter

from services.sync_engine.transfer.opened_source import folder_of_descriptors
from services.sync_engine.transfer.rclone_calls import FileCall, call_for_each
from services.sync_engine.transfer.rclone_daemon import RcloneDaemon
from services.sync_engine.transfer.source_file import SourceFiles
from services.sync_engine.transfer.transport import SourceEntry

_FRESH = {"NoCheckDest": True}


def send_files(
    daemon: RcloneDaemon,
    source: SourceFiles,
    fs: str,
    folder: bytes,
    entries: Sequence[SourceEntry],
    moved: Callable[[int, bytes], None],
) -> None:
    """Into a folder of the remote `fs`. TransferError, TransferStoppedError."""
    current = entries[0].path
    left = sum(entry.size for entry in entries)
    opened = {"type": "local", "_root": folder_of_descriptors(), "encoding": "Raw", "copy_links": "true"}

    def handled(nbytes: int) -> None:
        # rclone counts what it sends again, too.
        nonlocal left
        counted = min(nbytes, left)
        left -= counted
        moved(counted, current)

    def copy(entry: SourceEntry, held: ExitStack) -> Mapping[str, object]:
        nonlocal current
        current = entry.path
        descriptor = source.open_alone(entry)
        held.callback(os.close, descriptor)
        return {
            "srcFs": opened,
            "srcRemote": str(descriptor),
            "dstFs": fs,
            "dstRemote": f"{folder.decode()}/{entry.path.decode()}",
            "_config": _FRESH,
        }

    sending = FileCall("sending", "operations/copyfile", copy, attrgetter("path"), attrgetter("size"))
    call_for_each(daemon, sending, entries, handled)
    handled(left)
