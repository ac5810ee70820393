"""Reads a backup through once, in bounded memory, and proves each part of it. Blocking calls."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

import msgspec

from libs.event_log import backup_format, event_line
from libs.event_log.backup_format import Manifest
from libs.event_log.blob_store import BlobError
from libs.event_log.event import RecordedEvent
from libs.event_log.event_line import EventLineError
from libs.event_log.hash_chain import ChainCheck
from libs.event_log.store import RequestRecord

_MOST_ENTRY_BYTES = 256 << 20
_READ_BYTES = 1 << 20


class BackupError(Exception):
    """A backup is damaged, cut off, or no backup. `entry` names the part; `position` the event, 0 for none."""

    def __init__(self, entry: str, reason: str, position: int = 0) -> None:
        super().__init__(f"{entry}: {reason}" if entry else reason)
        self.entry, self.position = entry, position


@dataclass(frozen=True, slots=True)
class BackupParts:
    """Who is given what a backup holds, each part as soon as it is proven. The rest may still turn out damaged."""

    manifest: Callable[[Manifest], None]
    events: Callable[[Sequence[RecordedEvent]], None]
    blob: Callable[[str, BinaryIO], None]
    requests: Callable[[Sequence[RequestRecord]], None]


def read_backup(path: Path, sha256: str, parts: BackupParts) -> Manifest:
    """Gives out every part. BackupError says what is wrong first, and where; OSError when the file can't be read.

    `sha256`: what the whole file must be, lower-case hex.
    """
    with path.open("rb") as file:
        hashed = _HashedFile(file)
        reading = _Reading(parts)
        try:
            with tarfile.open(fileobj=cast(IO[bytes], hashed), mode="r|", bufsize=_READ_BYTES) as archive:
                for entry in archive:
                    reading.take(entry, archive)
        except (tarfile.TarError, EOFError) as error:
            raise BackupError(reading.entry, f"the file is cut off or damaged there: {error}") from error
        manifest = reading.finish()
        if (actual := hashed.finish()) != sha256:
            raise BackupError("", f"the whole file's SHA-256 is {actual}; it must be {sha256}")
    return manifest


class _HashedFile:
    """A file that is hashed while somebody reads it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._digest.update(content)
        return content

    def finish(self) -> str:
        while self.read(_READ_BYTES):
            pass
        return self._digest.hexdigest()


class _Reading:
    def __init__(self, parts: BackupParts) -> None:
        self._parts = parts
        self._manifest: Manifest | None = None
        self._chain: ChainCheck | None = None
        self._named: dict[str, int] = {}
        self._taken: set[str] = set()
        self._sums = b""
        self._summed = False
        self.entry = ""

    def take(self, entry: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        self.entry = entry.name
        content = archive.extractfile(entry) if entry.isreg() else None
        if content is None or self._summed:
            raise BackupError(entry.name, "no backup has this entry")
        if entry.name.startswith(backup_format.BLOBS):
            self._take_blob(entry.name.removeprefix(backup_format.BLOBS), cast(BinaryIO, content))
            return
        if entry.size > _MOST_ENTRY_BYTES:
            raise BackupError(entry.name, f"no backup has an entry of {entry.size} bytes")
        data = content.read()
        if entry.name == backup_format.SUMS:
            self._take_sums(data)
            return
        self._sums += f"{hashlib.sha256(data).hexdigest()}  {entry.name}\n".encode()
        if entry.name == backup_format.MANIFEST and self._manifest is None:
            self._take_manifest(data)
        elif entry.name.startswith(backup_format.EVENTS):
            self._take_events(data)
        elif entry.name.startswith(backup_format.REQUESTS):
            self._take_requests(data)
        elif entry.name != backup_format.CHECKPOINT:
            raise BackupError(entry.name, "no backup has this entry")

    def finish(self) -> Manifest:
        if self._manifest is None or self._chain is None or not self._summed:
            raise BackupError(self.entry, "the file is no backup, or is cut off behind this")
        head = self._manifest.head_position
        if self._chain.checked != head:
            position = self._chain.checked + 1
            raise BackupError("", f"event {position} is missing; the backup has {head} events", position)
        if self._chain.hash.hex() != self._manifest.head_hash:
            raise BackupError("", "the last event isn't the one that manifest.json names", head)
        for digest, position in self._named.items():
            if digest not in self._taken:
                raise BackupError("", f"the blob {digest}, which event {position} names, is missing", position)
        return self._manifest

    def _take_manifest(self, data: bytes) -> None:
        try:
            manifest = msgspec.json.decode(data, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BackupError(self.entry, f"can't be read: {error}") from error
        if manifest.layout != backup_format.LAYOUT:
            raise BackupError(self.entry, f"has the layout {manifest.layout!r}; this version reads no other than v1")
        self._manifest = manifest
        self._chain = ChainCheck(manifest.store_id)
        self._parts.manifest(manifest)

    def _take_events(self, data: bytes) -> None:
        if self._chain is None:
            raise BackupError(self.entry, "comes before manifest.json")
        events: list[RecordedEvent] = []
        for line in data.splitlines():
            position = self._chain.checked + len(events) + 1
            try:
                event, blobs = event_line.from_line(line)
            except EventLineError as error:
                raise BackupError(self.entry, f"event {position}: {error}", position) from error
            events.append(event)
            for digest in blobs:
                self._named.setdefault(digest, position)
        if (found := self._chain.check(events)) is not None:
            raise BackupError(self.entry, f"event {found.position}: {found.reason}", found.position)
        self._parts.events(events)

    def _take_blob(self, digest: str, content: BinaryIO) -> None:
        position = self._named.get(digest, 0)
        if not position:
            raise BackupError(self.entry, "no event before it names this blob")
        try:
            self._parts.blob(digest, content)
        except (BlobError, ValueError) as error:
            raise BackupError(self.entry, f"{error}; event {position} names it", position) from error
        self._taken.add(digest)

    def _take_requests(self, data: bytes) -> None:
        self._parts.requests(tuple(self._requests(data)))

    def _requests(self, data: bytes) -> Iterator[RequestRecord]:
        for number, line in enumerate(data.splitlines(), start=1):
            try:
                yield backup_format.request_from_line(line)
            except (msgspec.DecodeError, ValueError) as error:
                raise BackupError(self.entry, f"line {number} holds no request: {error}") from error

    def _take_sums(self, data: bytes) -> None:
        self._summed = True
        if data == self._sums:
            return
        told = set(data.splitlines())
        for line in self._sums.splitlines():
            if line not in told:
                name = line.partition(b"  ")[2].decode()
                raise BackupError(name, f"was changed: {backup_format.SUMS} has another SHA-256 for it")
        raise BackupError(backup_format.SUMS, "names an entry that isn't there")
