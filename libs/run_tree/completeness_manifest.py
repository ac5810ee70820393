"""The list of files by which an instrument says that a staged run is all there (FORMATS §6). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from libs.run_tree.json_value import JsonValue, NotJsonError, decode_json


class CompletenessManifestError(ValueError):
    """The list can't be used, so the run isn't complete; the message is one plain sentence without its full stop."""


@dataclass(frozen=True, slots=True)
class ExpectedFile:
    """A file that must be there. `size` None: of any size."""

    path: str
    size: int | None


def parse_completeness_manifest(content: bytes) -> Sequence[ExpectedFile]:
    """What must be there; nothing when the list names no file. CompletenessManifestError."""
    try:
        document = decode_json(content)
    except NotJsonError as error:
        raise CompletenessManifestError(f"it is no readable JSON: {error}") from error
    if not isinstance(document, dict):
        raise CompletenessManifestError("it holds no JSON object")
    files = document.get("files")
    if files is None:
        return ()
    if not isinstance(files, list):
        raise CompletenessManifestError("files is no list")
    return [_entry(entry, number) for number, entry in enumerate(files, start=1)]


def _entry(entry: JsonValue, number: int) -> ExpectedFile:
    path = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(path, str) or not path:
        raise CompletenessManifestError(f"entry {number} names no path")
    if leads_out(path):
        raise CompletenessManifestError(f"entry {number} is no path inside the run: {path[:200]!r}")
    size = entry.get("size")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
        raise CompletenessManifestError(f"entry {number} has no size in bytes: {str(size)[:80]!r}")
    return ExpectedFile(path, size)


def leads_out(path: str) -> bool:
    """Whether a path that should be relative to the run leads out of it, or names nothing."""
    parts = path.split("/")
    return "\0" in path or path.startswith("/") or any(part in ("", ".", "..") for part in parts)


def not_yet_there(expected: Sequence[ExpectedFile], sizes: Mapping[str, int]) -> Sequence[str]:
    """Paths of the expected files that aren't there with their size, in the list's order. `sizes` has the run's files,
    by path."""
    return [
        file.path
        for file in expected
        if file.path not in sizes or (file.size is not None and sizes[file.path] != file.size)
    ]
