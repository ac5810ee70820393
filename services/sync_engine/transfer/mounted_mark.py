"""A mark at a mounted destination: whether a run and its copy are one folder shows while it is there (mark.py)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from libs.run_tree.beneath import folder_beneath
from libs.run_tree.manifest import CACHE_FOLDER
from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.mark import is_mark
from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.sealing import seal_files
from services.sync_engine.transfer.system_error import destination_error
from services.sync_engine.transfer.transfer_control import TransferControl


@contextmanager
def marked_at(root: DestinationRoot, target: bytes, mark: bytes) -> Iterator[None]:
    """While the block lasts, a file of that name lies in the cache folder of the run at `target`; none of an earlier
    time does. TransferError."""
    cache = target + b"/" + CACHE_FOLDER
    _remove_marks(root, cache)
    try:
        seal_files(root, [SealedFile(cache + b"/" + mark, mark, time.time_ns())], TransferControl())
        yield
    finally:
        _remove_marks(root, cache)


def _remove_marks(root: DestinationRoot, cache: bytes) -> None:
    if root.status(cache) is None:
        return
    try:
        with folder_beneath(cache, dir_fd=root.fd) as folder:
            for name in map(os.fsencode, os.listdir(folder)):
                if is_mark(name):
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=folder)
    except OSError as error:
        raise destination_error(error, "removing a mark from", cache) from error
