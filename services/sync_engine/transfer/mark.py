"""The small file that shows whether a run and its copy are one folder: put into one, it is looked for in the other."""

from __future__ import annotations

import re
import secrets

# A temporary file beside the changing ones: it never travels, no verification calls it unexpected, no manifest has it.
_MARK = re.compile(rb"copy-mark\.[0-9a-f]{32}\.tmp")


def new_mark() -> bytes:
    """A name for it in the cache folder, which nothing has ever had."""
    return b"copy-mark." + secrets.token_hex(16).encode("ascii") + b".tmp"


def is_mark(name: bytes) -> bool:
    """Whether a name in the cache folder is one of these."""
    return _MARK.fullmatch(name) is not None
