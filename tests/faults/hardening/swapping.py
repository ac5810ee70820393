"""A folder that is its own and a symlink to another place by turns, as fast as the machine can."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_AT_FDCWD = -100
_EXCHANGE = 2


def exchange(one: Path, other: Path) -> None:
    """Swaps two names at once: there is no moment when one of them is missing."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


@contextmanager
def swapping(folder: Path, target: Path) -> Iterator[None]:
    """Its own again at the end, unless somebody deleted it. The other one of the two lies beside it meanwhile."""
    link, ending = folder.with_name("swapped"), threading.Event()
    link.symlink_to(target)

    def swap() -> None:
        with suppress(FileNotFoundError):
            while not ending.is_set():
                exchange(folder, link)
                exchange(folder, link)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
        link.unlink()
