"""A BagIt bag (RFC 8493, version 1.0, SHA-256) of a run's files: written beside its place and moved there when whole.
Its manifest has them in the order in which they were added.

Blocking calls; OSError when the system refuses.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path
from types import TracebackType
from typing import Self

_BLOCK = 1 << 20
_MANIFEST = "manifest-sha256.txt"
_DECLARATION = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class BagError(Exception):
    """The bag can't be made; the message names the file and says why."""


class BagWriter:
    """Fills a new bag. Leaving the block by an error leaves nothing."""

    def __init__(self, place: Path) -> None:
        """BagError when something has that name."""
        if os.path.lexists(place):
            raise BagError(f"{place} exists; it is not replaced")
        self._place = place
        self._folder = place.with_name(f"{place.name}.partial")
        self._manifest: BufferedWriter | None = None
        self._files = self._bytes = 0

    def __enter__(self) -> Self:
        try:
            (self._folder / "data").mkdir(parents=True)
        except FileExistsError as error:
            raise BagError(f"{self._folder} is left of an export that was cut off; remove it") from error
        self._manifest = (self._folder / _MANIFEST).open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._manifest is not None:
            self._manifest.close()
        if error is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def copy(self, path: bytes, sha256: str, sources: Sequence[Path]) -> int:
        """Copies one file from the first of these folders in which it holds exactly that content; its size. BagError
        when none does, or its name is not UTF-8: a bag can't list it then."""
        name = _text(path)
        target = self._folder / "data" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        for source in sources:
            with suppress(OSError):
                if (size := _copy(os.fsencode(source) + b"/" + path, target, sha256)) is not None:
                    self._note(name, sha256, size)
                    return size
        raise BagError(f"{name}: nowhere with the content that was verified")

    def size(self, path: bytes) -> int:
        """Of a file that was copied."""
        return (self._folder / "data" / _text(path)).stat().st_size

    def write(self, name: str, pieces: Iterable[bytes]) -> None:
        """Adds a payload file that is made here."""
        place = self._folder / "data" / name
        if os.path.lexists(place):
            raise BagError(f"{name}: the run has a file of this name itself")
        with place.open("w+b") as file:
            file.writelines(pieces)
            size = file.tell()
            file.seek(0)
            self._note(name, hashlib.file_digest(file, "sha256").hexdigest(), size)

    def close(self, info: Mapping[str, str], tags: Mapping[str, bytes]) -> None:
        """Writes the tag files, those in `tags` beside the bag's own, and moves the bag to its place."""
        assert self._manifest is not None
        self._manifest.close()
        lines = {**info, "Payload-Oxum": f"{self._bytes}.{self._files}"}
        files = {
            "bagit.txt": _DECLARATION,
            "bag-info.txt": "".join(f"{label}: {' '.join(value.split())}\n" for label, value in lines.items()).encode(),
            **tags,
        }
        for name, content in files.items():
            (self._folder / name).write_bytes(content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        with (self._folder / _MANIFEST).open("rb") as manifest:
            digests[_MANIFEST] = hashlib.file_digest(manifest, "sha256").hexdigest()
        listed = "".join(f"{digest}  {_escaped(name)}\n" for name, digest in sorted(digests.items()))
        (self._folder / "tagmanifest-sha256.txt").write_bytes(listed.encode())
        os.rename(self._folder, self._place)

    def _note(self, name: str, sha256: str, size: int) -> None:
        assert self._manifest is not None
        self._manifest.write(f"{sha256}  data/{_escaped(name)}\n".encode())
        self._files += 1
        self._bytes += size


def _copy(source: bytes, target: Path, sha256: str) -> int | None:
    """The size; None when the content is another."""
    digest = hashlib.sha256()
    with open(os.open(source, _READ), "rb", buffering=0) as content, target.open("wb") as copy:
        status = os.fstat(content.fileno())
        size = 0
        while block := content.read(_BLOCK):
            digest.update(block)
            size += copy.write(block)
        copy.flush()
        os.utime(copy.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
    return size if digest.hexdigest() == sha256 else None


def _text(path: bytes) -> str:
    try:
        return path.decode()
    except UnicodeDecodeError as error:
        raise BagError(f"{path.decode(errors='replace')}: its name is not UTF-8, and a bag can't list it") from error


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace("\n", "%0A").replace("\r", "%0D")
