"""A file of checkpoints, one a line: only ever appended to, so that it can lie where nothing else is allowed.

Blocking calls; OSError when the system refuses.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from libs.event_log.checkpoint import CheckpointFormatError, SignedCheckpoint, from_line, to_line

_MOST_LINE_BYTES = 4096


def file_name(service: str, store_id: str, series: str) -> str:
    return f"{service}-{store_id}-{series}.jsonl"


def files_of_log(folder: Path, service: str, store_id: str) -> Sequence[Path]:
    """The files of every writer of a log's checkpoints. OSError when the folder can't be listed."""
    prefix, suffix = file_name(service, store_id, "\0").split("\0")
    names = [name for name in os.listdir(folder) if name.startswith(prefix) and name.endswith(suffix)]
    return [folder / name for name in sorted(names)]


def read_lines(path: Path) -> Iterator[SignedCheckpoint | CheckpointFormatError]:
    """What each line holds. A line without an end was cut off by a crash; its checkpoint was written again."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        _require_regular(descriptor, path)
        while line := file.readline(_MOST_LINE_BYTES):
            try:
                yield from_line(line)
            except CheckpointFormatError as error:
                yield error


def last_number(path: Path, series: str) -> int:
    """Number of the last checkpoint of a series in a file; 0 when the file isn't there, or has none."""
    try:
        lines = list(read_lines(path))
    except FileNotFoundError:
        return 0
    return max(
        (s.checkpoint.number for s in lines if isinstance(s, SignedCheckpoint) and s.checkpoint.series == series),
        default=0,
    )


def append(path: Path, checkpoints: Sequence[SignedCheckpoint]) -> None:
    """Durable when it returns. What an earlier attempt left of a line stays, on a line of its own."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o644)
    try:
        _require_regular(descriptor, path)
        size = os.fstat(descriptor).st_size
        data = b"".join(map(to_line, checkpoints))
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if size == 0:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _require_regular(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
