"""A BagIt bag (RFC 8493, version 1.0, SHA-256) of a run's files: written beside its place, made durable, and moved
there when whole. Its manifest has them in the order in which they were added.

Blocking calls; OSError when the system refuses at the bag. What the system refuses at a source only means that the file
isn't there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedWriter, FileIO
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from libs.run_tree.libc import rename_noreplace, sync_filesystem

_BLOCK = 1 << 20
_MANIFEST = "manifest-sha256.txt"
_FORM: Literal["NFC"] = "NFC"
_DECLARATION = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
_CANNOT_REFUSE = frozenset({errno.EINVAL, errno.ENOSYS})
# AT_FDCWD: relative to the working folder, as all paths here are unless they are absolute.
_HERE = -100
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class BagError(Exception):
    """The bag can't be made; the message names the file and says why."""


@dataclass(frozen=True, slots=True)
class BaggedFile:
    """`source` is the folder that the bytes came from."""

    size: int
    source: Path


class BagWriter:
    """Fills a new bag. Leaving the block by an error leaves nothing."""

    def __init__(self, place: Path, stopped: Callable[[], bool] = lambda: False) -> None:
        """BagError when something has that name. `stopped` is asked for each block and before the bag gets its name:
        once it says so, BagError ends the work."""
        if os.path.lexists(place):
            raise BagError(f"{place} exists; it is not replaced")
        self._place = place
        self._stopped = stopped
        self._folder = place.with_name(f"{place.name}.partial")
        self._manifest: BufferedWriter | None = None
        self._files = self._bytes = 0

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir()
            (self._folder / "data").mkdir()
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

    def copy(self, path: bytes, sha256: str, sources: Sequence[Path]) -> BaggedFile:
        """Copies one file from the first of these folders in which it holds exactly that content. BagError when none
        does, or its name is not UTF-8: a bag can't list it then."""
        name = _text(path)
        target = self._folder / "data" / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = target.open("xb")
        except (FileExistsError, NotADirectoryError) as error:
            raise BagError(
                f"{name}: another file of the run has this name where the bag lies; names that differ by case or"
                " Unicode form alone are one there"
            ) from error
        with copy:
            for source in sources:
                size = self._copy(os.fsencode(source) + b"/" + path, copy, sha256)
                if size is not None:
                    self._note(name, sha256, size)
                    return BaggedFile(size, source)
        raise BagError(f"{name}: nowhere with the content that was verified")

    def _copy(self, source: bytes, copy: BufferedWriter, sha256: str) -> int | None:
        """The size; None when the content is another, or can't be read."""
        digest = hashlib.sha256()
        copy.seek(0)
        copy.truncate()
        try:
            descriptor = os.open(source, _READ)
        except OSError:
            return None
        with open(descriptor, "rb", buffering=0) as content:
            while block := self._block(content):
                digest.update(block)
                copy.write(block)
            copy.flush()
            status = os.fstat(content.fileno())
        os.utime(copy.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        return copy.tell() if digest.hexdigest() == sha256 else None

    def _block(self, content: FileIO) -> bytes:
        """The next one; at the end, and where no more can be read, an empty one."""
        self._end_if_stopped()
        try:
            return content.read(_BLOCK) or b""
        except OSError:
            return b""

    def _end_if_stopped(self) -> None:
        if self._stopped():
            raise BagError("it was stopped")

    def size(self, path: bytes) -> int:
        """Of a file that was copied."""
        return (self._folder / "data" / _text(path)).stat().st_size

    def write(self, name: str, pieces: Iterable[bytes]) -> None:
        """Adds a payload file that is made here."""
        place = self._folder / "data" / name
        if os.path.lexists(place):
            raise BagError(f"{name}: the run has a file of this name itself")
        place.parent.mkdir(exist_ok=True)
        with place.open("w+b") as file:
            file.writelines(pieces)
            size = file.tell()
            file.seek(0)
            self._note(name, hashlib.file_digest(file, "sha256").hexdigest(), size)

    def close(self, info: Mapping[str, str], tags: Mapping[str, bytes]) -> None:
        """Writes the tag files, those in `tags` beside the bag's own, makes all of it durable, and moves the bag to its
        place. BagError when something has that name by now."""
        assert self._manifest is not None
        self._manifest.close()
        lines = {**info, "Payload-Oxum": f"{self._bytes}.{self._files}"}
        files = {
            "bagit.txt": _DECLARATION,
            "bag-info.txt": "".join(f"{label}: {' '.join(value.split())}\n" for label, value in lines.items()).encode(),
            **tags,
        }
        for name, content in files.items():
            place = self._folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        with (self._folder / _MANIFEST).open("rb") as manifest:
            digests[_MANIFEST] = hashlib.file_digest(manifest, "sha256").hexdigest()
        listed = "".join(f"{digest}  {_escaped(name)}\n" for name, digest in sorted(digests.items()))
        (self._folder / "tagmanifest-sha256.txt").write_bytes(listed.encode())
        folder = os.open(self._folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_filesystem(folder)
            self._end_if_stopped()
            _move(self._folder, self._place)
            os.fsync(folder)
        except FileExistsError as error:
            raise BagError(f"{self._place} appeared meanwhile; it is not replaced") from error
        finally:
            os.close(folder)

    def _note(self, name: str, sha256: str, size: int) -> None:
        assert self._manifest is not None
        self._manifest.write(f"{sha256}  data/{_escaped(name)}\n".encode())
        self._files += 1
        self._bytes += size


def _move(source: Path, target: Path) -> None:
    """FileExistsError when the name is taken by now."""
    try:
        rename_noreplace(_HERE, os.fsencode(source), _HERE, os.fsencode(target))
    except OSError as error:
        if error.errno not in _CANNOT_REFUSE:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        os.rename(source, target)


def misread_by_python_bagit(names: Callable[[], Iterable[str]]) -> list[str]:
    """Those which the `bagit` package doesn't read as RFC 8493 writes them; `names` gives all of a bag, each time it is
    called. Up to 1.9 that package decodes no escaped percent sign, takes more characters than a line feed for the end
    of a line, drops white space there, and takes two Unicode forms of a name for one."""
    composed = {_composed(name) for name in names() if not unicodedata.is_normalized(_FORM, name)}
    files = Counter(form for name in names() if (form := _composed(name)) in composed)
    return [name for name in names() if not _is_read(name) or files[_composed(name)] > 1]


def _composed(name: str) -> str:
    return unicodedata.normalize(_FORM, name)


def _is_read(name: str) -> bool:
    line = _escaped(name)
    return "%" not in name and line == line.rstrip() and len(line.splitlines()) == 1


def _text(path: bytes) -> str:
    try:
        return path.decode()
    except UnicodeDecodeError as error:
        raise BagError(f"{path.decode(errors='replace')}: its name is not UTF-8, and a bag can't list it") from error


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace("\n", "%0A").replace("\r", "%0D")
