"""Ties a process to the one that started it, so that nothing is left behind when that one is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Has the kernel send SIGTERM when the process `parent`, which started this one, dies."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        # It died before the kernel was told.
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    # As a script, `parent.py PARENT COMMAND …` becomes a foreign tool that ends with the process that started it.
    end_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
