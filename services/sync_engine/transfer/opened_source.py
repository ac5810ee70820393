"""What a foreign tool is given of a run: an open descriptor's path, which leads to what was opened, whatever becomes of
its name. Tools follow symlinks on the way to a file, and whoever may write to the run could put one there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from libs.run_tree.beneath import open_beneath
from services.sync_engine.transfer.system_error import source_error
from services.sync_engine.transfer.transport import TransferError


def folder_of_descriptors() -> str:
    """Where any process of this user finds what this one has opened, by the descriptor's number."""
    return f"/proc/{os.getpid()}/fd"


@contextmanager
def opened_folder(folder: bytes) -> Iterator[bytes]:
    """The path to give instead of the run's folder, while the block lasts. A tool's words name the folder itself.
    TransferError."""
    try:
        descriptor = open_beneath(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise source_error(error, b".") from error
    given = f"{folder_of_descriptors()}/{descriptor}"
    try:
        yield os.fsencode(given)
    except TransferError as failure:
        words = failure.message.replace(given, folder.decode(errors="replace"))
        raise TransferError(failure.kind, words, failure.paths, failure.differing) from failure
    finally:
        os.close(descriptor)
