"""An engine that stands still, as one that swaps, at the moment a name appears; or its whole machine, as a laptop that
sleeps.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_IN_CREATE = 0x100
_LOOK_SECONDS = 0.1
_libc = ctypes.CDLL(None, use_errno=True)


def children_of(pid: int) -> list[int]:
    """All that it started, and what they did."""
    found = [pid]
    for above in found:
        # A process that ends meanwhile has no children.
        with suppress(OSError):
            for thread in Path(f"/proc/{above}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found[1:]


def stop_machine(pid: int) -> None:
    """Stops the process with all that it started."""
    os.kill(pid, signal.SIGSTOP)
    stopped: set[int] = set()
    while new := set(children_of(pid)) - stopped:
        for child in new:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGSTOP)
        stopped |= new


def wake_machine(pid: int) -> None:
    """What it started runs as soon as the process itself does."""
    for stopped in (*children_of(pid), pid):
        with suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGCONT)


def stop_engine(pid: int) -> None:
    """Stops the process alone."""
    os.kill(pid, signal.SIGSTOP)


@contextmanager
def frozen_when_made(folder: Path, pid: int, stop: Callable[[int], None] = stop_engine) -> Iterator[threading.Event]:
    """Stops the process as soon as anything is made in the folder; the event says that it was."""
    watch = _libc.inotify_init1(os.O_CLOEXEC)
    assert _libc.inotify_add_watch(watch, os.fsencode(folder), _IN_CREATE) >= 0
    frozen, over = threading.Event(), threading.Event()

    def look() -> None:
        while not over.is_set():
            if select.select([watch], [], [], _LOOK_SECONDS)[0]:
                stop(pid)
                frozen.set()
                return

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield frozen
    finally:
        over.set()
        looking.join()
        os.close(watch)
