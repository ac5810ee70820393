"""Larger evidence beside the log: content-addressed, append-only files whose digest is in an event."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

_DIGEST = re.compile(r"[0-9a-f]{64}")
_TEMPORARY_PREFIX = ".new-"


class BlobError(Exception):
    """Base of what is wrong with a blob. `digest` names it."""

    def __init__(self, digest: str, message: str) -> None:
        super().__init__(message)
        self.digest = digest


class BlobMissingError(BlobError):
    """No blob has this digest."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest, f"the blob {digest} is missing")


class BlobChangedError(BlobError):
    """The blob's bytes aren't those that its digest names."""

    def __init__(self, digest: str, actual: str) -> None:
        super().__init__(digest, f"the blob {digest} was changed; its bytes now have the digest {actual}")
        self.actual = actual


class BlobStore:
    """Blobs under a folder, each as `ab/abcd…` by the lower-case hex of its SHA-256. Nothing is ever replaced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, content: bytes) -> str:
        """Keeps the bytes; their digest. Durable when it returns. OSError when the disk refuses."""
        return await asyncio.to_thread(self.put_sync, content)

    def put_sync(self, content: bytes) -> str:
        """`put` for worker threads."""
        digest = hashlib.sha256(content).hexdigest()
        target = self._path(digest)
        if target.exists():
            # Whoever linked it may have died before this.
            _sync_folder(target.parent)
            return digest
        self._make_folder(target.parent)
        descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY_PREFIX, dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), 0o400)
                os.fsync(file.fileno())
            # Unlike a rename this never replaces; whoever came first wrote the same bytes.
            with suppress(FileExistsError):
                os.link(name, target)
        finally:
            os.unlink(name)
        _sync_folder(target.parent)
        return digest

    async def read(self, digest: str) -> bytes:
        """The bytes, checked. BlobMissingError, BlobChangedError; ValueError for what is no digest."""
        return await asyncio.to_thread(self.read_sync, digest)

    def read_sync(self, digest: str) -> bytes:
        """`read` for worker threads."""
        try:
            content = self._path(digest).read_bytes()
        except FileNotFoundError:
            raise BlobMissingError(digest) from None
        actual = hashlib.sha256(content).hexdigest()
        if actual != digest:
            raise BlobChangedError(digest, actual)
        return content

    def sweep(self) -> int:
        """Removes what a killed process left unfinished; how many files. Only before anything is put."""
        leftovers = list(self._folder.glob(f"??/{_TEMPORARY_PREFIX}*"))
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)
        return len(leftovers)

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is no SHA-256 in lower-case hex")
        return self._folder / digest[:2] / digest

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(self._folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
