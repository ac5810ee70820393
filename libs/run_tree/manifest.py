"""Which of a run's files are data, and the `checksums.sha256` that lists them (SPEC §4, FORMATS §7)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

CACHE_FOLDER = b".exlab-wizard"
MANIFEST_PATH = CACHE_FOLDER + b"/checksums.sha256"

_NEVER_TRAVELS = re.compile(rb"(?s).+\.lock|.+\.[^.]+\.tmp")
_CHANGING = re.compile(
    rb"(?s)creation\.json|ingest\.json|readme_fields\.json|wizard\..*\.log|checksums\.sha256|receipt.*\.json"
)
_LINE = re.compile(rb"(?s)(?P<escaped>\\?)(?P<digest>[0-9a-f]{64})  (?P<name>.+)")
_ESCAPES = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}
_NO_NAMES = frozenset({b"", b".", b".."})
_UNESCAPE = re.compile(rb"\\.?")


class ManifestError(ValueError):
    """A text that is no manifest; the message names the line."""


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One file: its path relative to the run, and the SHA-256 of its content, lower-case hex."""

    path: bytes
    sha256: str


def _cache_file_name(relative: bytes) -> bytes | None:
    folder, slash, name = relative.partition(b"/")
    return name if slash and folder == CACHE_FOLDER and b"/" not in name else None


def never_travels(relative: bytes) -> bool:
    """True for locks and temporary files, directly in the run's own cache folder."""
    name = _cache_file_name(relative)
    return name is not None and _NEVER_TRAVELS.fullmatch(name) is not None


def is_changing_file(relative: bytes) -> bool:
    """True for files that programs rewrite after the acquisition: no part of the manifest, brought over by sealing.

    They lie directly in the run's own cache folder; a file of that name anywhere else is data.
    """
    name = _cache_file_name(relative)
    return name is not None and (_CHANGING.fullmatch(name) is not None or _NEVER_TRAVELS.fullmatch(name) is not None)


def format_manifest(entries: Iterable[ManifestEntry]) -> bytes:
    """The file as `sha256sum -c` accepts it in the run's folder, sorted by path."""
    # Sorting UTF-8 bytes is sorting by code point, and is defined for names that aren't UTF-8 too.
    return b"".join(map(manifest_line, sorted(entries, key=lambda entry: entry.path)))


def manifest_line(entry: ManifestEntry) -> bytes:
    """One entry's part of the file."""
    # sha256sum takes "-" for its standard input.
    name = b"./-" if entry.path == b"-" else entry.path
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != name else b""
    return mark + entry.sha256.encode("ascii") + b"  " + escaped + b"\n"


def parse_manifest(content: bytes) -> list[ManifestEntry]:
    """The entries in file order. ManifestError for anything that `format_manifest` or sha256sum would not write."""
    return list(read_manifest(io.BytesIO(content)))


def read_manifest(lines: Iterable[bytes]) -> Iterator[ManifestEntry]:
    """As `parse_manifest`, line by line as a file gives them."""
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            raise ManifestError(f"Line {number} of the manifest is cut off.")
        shape = _LINE.fullmatch(line[:-1])
        if shape is None:
            raise ManifestError(f"Line {number} of the manifest is not 64 hex digits, two spaces and a path.")
        name = shape["name"]
        if shape["escaped"]:
            name = _unescaped(name, number)
        name = b"-" if name == b"./-" else name
        if not _NO_NAMES.isdisjoint(name.split(b"/")):
            raise ManifestError(f"Line {number} of the manifest names a path in a way that no manifest does.")
        yield ManifestEntry(name, shape["digest"].decode("ascii"))


def _unescaped(name: bytes, number: int) -> bytes:
    def plain(sequence: re.Match[bytes]) -> bytes:
        if sequence.group() not in _ESCAPES:
            raise ManifestError(f"Line {number} of the manifest holds an unknown escape.")
        return _ESCAPES[sequence.group()]

    return _UNESCAPE.sub(plain, name)
