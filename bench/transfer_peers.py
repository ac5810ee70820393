"""What people run for the same as a transfer with its verification: a tool that copies, then hashes of both sides.

Neither tool syncs, and both hash what this machine's cache holds: they prove less than ours does.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from bench.process_cost import run_tools
from bench.table import Sample
from services.sync_engine.transfer.tool_process import find_tool

RCLONE = "rclone copy, then rclone hashsum of both sides at once"
RSYNC = "rsync, then sha256sum of both sides on two cores"
TARGET_RATIO = 1 / 1.5
"""Ours is to be 1.5 times faster than either."""


def by_rclone(run: Path, destination: Path) -> Sample:
    rclone = [find_tool("rclone"), "--config", "/dev/null"]
    hashing = [[*rclone, "hashsum", "sha256", str(place)] for place in (run, destination)]
    return run_tools([[[*rclone, "copy", str(run), str(destination)]], hashing])


def by_rsync(run: Path, destination: Path, files_a_call: int) -> Sample:
    """`files_a_call`: how many files each sha256sum gets."""
    both = f"{shlex.quote(str(run))} {shlex.quote(str(destination))}"
    hashing = f"find {both} -type f -print0 | xargs -0 -P2 -n{files_a_call} sha256sum"
    copy = [find_tool("rsync"), "-rt", f"{run}/", f"{destination}/"]
    return run_tools([[copy], [["sh", "-c", hashing]]])
