"""What people run for the same as a transfer with its verification: a tool that copies, then hashes of both sides.

By itself neither tool syncs, and both hash what this machine's cache holds: they prove less than ours does. What they
take when their files must be durable, too, is a line of its own: rsync has an option for it, rclone has none, and what
it copied is synced file by file by coreutils before it is hashed.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from bench.process_cost import run_tools
from bench.table import Sample
from services.sync_engine.transfer.tool_process import find_tool

RCLONE = "rclone copy, then rclone hashsum of both sides at once"
RSYNC = "rsync, then sha256sum of both sides on two cores"
RCLONE_DURABLE = "rclone copy, then sync of each file, then rclone hashsum of both sides at once"
RSYNC_DURABLE = "rsync --fsync, then sha256sum of both sides on two cores"
TARGET_RATIO = 1 / 1.5
"""Ours is to be 1.5 times faster than either,"""
DURABLE_TARGET_RATIO = 1 / 2
"""and twice as fast when they must sync, as ours does."""


def by_rclone(run: Path, destination: Path, *, durable: bool = False) -> Sample:
    rclone = [find_tool("rclone"), "--config", "/dev/null"]
    copy = [[*rclone, "copy", str(run), str(destination)]]
    hashing = [[*rclone, "hashsum", "sha256", str(place)] for place in (run, destination)]
    syncing = [["find", str(destination), "-type", "f", "-exec", "sync", "{}", "+"]]
    return run_tools([copy, syncing, hashing] if durable else [copy, hashing])


def by_rsync(run: Path, destination: Path, files_a_call: int, *, durable: bool = False) -> Sample:
    """`files_a_call`: how many files each sha256sum gets."""
    both = f"{shlex.quote(str(run))} {shlex.quote(str(destination))}"
    hashing = f"find {both} -type f -print0 | xargs -0 -P2 -n{files_a_call} sha256sum"
    copy = [find_tool("rsync"), "-rt", *(["--fsync"] if durable else []), f"{run}/", f"{destination}/"]
    return run_tools([[copy], [["sh", "-c", hashing]]])
