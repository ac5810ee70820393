"""`labferry run accept`, ready to be typed, for files that differ from what a destination holds. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from labferry.sync.v1 import job_pb2, sync_service_pb2

BY = '--operator NAME --reason "WHY"'


def accept_command(run: str, file: job_pb2.DifferingFile, destination: str = "") -> str:
    new = f"--new {file.new_sha256}" if file.new_sha256 else "--removed"
    at = f" --destination {shlex.quote(destination)}" if destination else ""
    raw = file.path_bytes or file.path.encode()
    named, options = f"{shlex.quote(run)} {_word(raw)}", f"--old {file.old_sha256} {new}{at} {BY}"
    # Else the path is taken for an option.
    return f"labferry run accept {options} -- {named}" if raw[:1] == b"-" else f"labferry run accept {named} {options}"


def accept_commands(run: str, changes: Sequence[sync_service_pb2.VerifiedFileChange]) -> list[str]:
    """One for each file, and for each destination where only some hold the old content."""
    return [accept_command(run, each.file, at) for each in changes for at in each.destinations or ("",)]


def _word(path: bytes) -> str:
    """As bash and zsh take it: what can't be printed, or isn't UTF-8, as escapes."""
    text = path.decode(errors="replace")
    if text.isprintable() and text.encode() == path:
        return shlex.quote(text)
    return "$'" + "".join(chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in path) + "'"
