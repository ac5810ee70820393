"""`wizard.<hostname>.log`: the run's own log for people, shared with the desktop wizard (FORMATS §7)."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from libs.run_tree.atomic_file import NotAPlainFileError, read_in_folder
from libs.run_tree.beneath import folder_beneath
from libs.run_tree.manifest import CACHE_FOLDER
from libs.run_tree.timestamp import format_time

MAX_LINE_BYTES = 1024
_CUT = "...[truncated]"
_NAME = re.compile(r"wizard\..+\.log")
_HOST_TAG = re.compile(rb" \[host:[^\]]*\]")


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class LogTags:
    """Where a line belongs; an empty tag is left out. `project` is the LIMS short id, `run` the run folder's name."""

    host: str = ""
    equipment: str = ""
    project: str = ""
    kind: str = ""
    run: str = ""


def log_line(at: datetime, level: LogLevel, tags: LogTags, message: str) -> bytes:
    """One line without its newline, at most 1,024 bytes: a longer one loses the end of its message."""
    named = (
        ("host", tags.host),
        ("equip", tags.equipment),
        ("proj", tags.project),
        ("kind", tags.kind),
        ("run", tags.run),
    )
    parts = [format_time(at), f"[{level:<5}]", *(f"[{name}:{value}]" for name, value in named if value)]
    text = " ".join([*parts, message])
    line = "".join(c if c.isprintable() else " " for c in text).encode(errors="replace")
    if len(line) <= MAX_LINE_BYTES:
        return line
    return line[: MAX_LINE_BYTES - len(_CUT)].decode(errors="ignore").encode() + _CUT.encode()


def missing_lines(wanted: Sequence[bytes], present: Iterable[bytes]) -> list[bytes]:
    """The lines that aren't there yet, each as often as it is lacking, in order. Who wrote a line doesn't matter."""
    there = Counter(_without_host(line) for line in present)
    missing = []
    for line in wanted:
        key = _without_host(line)
        if there[key] > 0:
            there[key] -= 1
        else:
            missing.append(line)
    return missing


def read_lines(run_folder: Path) -> list[bytes]:
    """Whole lines of every `wizard.*.log` of the run. OSError."""
    lines: list[bytes] = []
    cache = run_folder / CACHE_FOLDER.decode()
    with folder_beneath(cache) as folder:
        for name in sorted(filter(_NAME.fullmatch, os.listdir(folder))):
            with suppress(NotAPlainFileError):
                lines += read_in_folder(folder, cache / name).split(b"\n")
    return lines


def append_lines(run_folder: Path, hostname: str, lines: Sequence[bytes]) -> None:
    """Appends to the run's `wizard.<hostname>.log` with one write. The cache folder must be there. OSError."""
    # O_NONBLOCK: a named pipe of that name must not be waited for.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    path = run_folder / CACHE_FOLDER.decode() / f"wizard.{hostname}.log"
    with folder_beneath(path.parent) as folder:
        descriptor = os.open(path.name, flags, 0o600, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotAPlainFileError(errno.EINVAL, "is no plain file", str(path))
        size = status.st_size
        # A line that a full disk or a crash cut off stays a line of its own.
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        content = b"".join(line + b"\n" for line in lines)
        os.write(descriptor, b"\n" + content if torn else content)
    finally:
        os.close(descriptor)


def _without_host(line: bytes) -> bytes:
    return _HOST_TAG.sub(b"", line, count=1)
