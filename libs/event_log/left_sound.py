"""Whether a database file is as its owner left it: then its structure needn't be checked again, which takes seconds a
gigabyte.

For files that can be made again from the log. What a disk forgets by itself no note beside the file tells of.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec


class _Seen(msgspec.Struct):
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def note_path(database: Path) -> Path:
    """Where the note lies."""
    return database.with_name(database.name + ".sound")


def leave_sound(database: Path) -> None:
    """Notes how a file is that was opened, found sound, and closed again. A note that can't be written is missed by
    nobody but the next start."""
    note = note_path(database)
    with suppress(OSError):
        note.write_bytes(msgspec.json.encode(_seen(database)))


def was_left_sound(database: Path) -> bool:
    """Whether nothing has happened to the file since. Takes the note away: from now on it may be killed at any time."""
    note = note_path(database)
    try:
        left = msgspec.json.decode(note.read_bytes(), type=_Seen)
        note.unlink()
        return left == _seen(database) and not os.path.lexists(f"{database}-wal")
    except (OSError, msgspec.DecodeError):
        return False


def _seen(database: Path) -> _Seen:
    status = os.stat(database)
    return _Seen(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
