"""Larger evidence beside the log: content-addressed, append-only files whose digest is in an event."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from libs.event_log.own_disk import on_own_disk

_DIGEST = re.compile(r"[0-9a-f]{64}")
_TEMPORARY_PREFIX = ".new-"
_CHUNK_BYTES = 1 << 20
_ROOM_BYTES = 1 << 20


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


class BlobUnreadableError(BlobError):
    """The system refuses to read the blob."""

    def __init__(self, digest: str, words: str) -> None:
        super().__init__(digest, f"the blob {digest} can't be read: {words}")


class BlobStore:
    """Blobs under a folder, each as `ab/abcd…` by the lower-case hex of its SHA-256. Nothing is ever replaced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, content: bytes) -> str:
        """Keeps the bytes; their digest. Durable when it returns. LogDiskFullError, LogUnavailableError when
        the disk refuses."""
        return await asyncio.to_thread(self.put_sync, content)

    def put_sync(self, content: bytes) -> str:
        """`put` for worker threads."""
        digest = hashlib.sha256(content).hexdigest()
        with on_own_disk():
            self._put(digest, io.BytesIO(content))
        return digest

    def put_pieces_sync(self, pieces: Iterable[bytes]) -> str:
        """As `put_sync`, for content that comes piece by piece, in bounded memory."""
        digest = hashlib.sha256()
        with on_own_disk():
            self._make_folder(self._folder)
            with tempfile.TemporaryFile(prefix=_TEMPORARY_PREFIX, dir=self._folder) as gathered:
                for piece in pieces:
                    digest.update(piece)
                    gathered.write(piece)
                gathered.seek(0)
                self._put(digest.hexdigest(), gathered)
        return digest.hexdigest()

    def require_room_sync(self) -> None:
        """LogDiskFullError when not even a small blob would find room. For worker threads."""
        with on_own_disk():
            self._make_folder(self._folder)
            with tempfile.TemporaryFile(prefix=_TEMPORARY_PREFIX, dir=self._folder) as trial:
                os.posix_fallocate(trial.fileno(), 0, _ROOM_BYTES)

    def put_file_sync(self, content: BinaryIO, digest: str) -> None:
        """Keeps what a file holds, in bounded memory. For worker threads.

        BlobChangedError when its digest is another, ValueError for what is no digest; then nothing is kept.
        """
        with on_own_disk():
            self._put(digest, content)

    def _put(self, digest: str, content: BinaryIO) -> None:
        target = self._path(digest)
        if target.exists():
            # Whoever linked it may have died before this.
            _sync_folder(target.parent)
            return
        self._make_folder(target.parent)
        descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY_PREFIX, dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                actual = hashlib.sha256()
                while chunk := content.read(_CHUNK_BYTES):
                    actual.update(chunk)
                    file.write(chunk)
                if actual.hexdigest() != digest:
                    raise BlobChangedError(digest, actual.hexdigest())
                file.flush()
                os.fchmod(file.fileno(), 0o400)
                os.fsync(file.fileno())
            # Unlike a rename this never replaces; whoever came first wrote the same bytes.
            with suppress(FileExistsError):
                os.link(name, target)
        finally:
            os.unlink(name)
        _sync_folder(target.parent)

    async def read(self, digest: str) -> bytes:
        """The bytes, checked. BlobMissingError, BlobChangedError, BlobUnreadableError; ValueError for what is no
        digest."""
        return await asyncio.to_thread(self.read_sync, digest)

    def read_sync(self, digest: str) -> bytes:
        """`read` for worker threads."""
        with _as_blob_error(digest):
            content = self._path(digest).read_bytes()
        actual = hashlib.sha256(content).hexdigest()
        if actual != digest:
            raise BlobChangedError(digest, actual)
        return content

    def check_sync(self, digest: str) -> int:
        """Reads a blob through without keeping it; its size. Errors as `read`. For worker threads."""
        with self.open_sync(digest) as file, _as_blob_error(digest):
            actual = hashlib.file_digest(file, "sha256").hexdigest()
            if actual != digest:
                raise BlobChangedError(digest, actual)
            return file.tell()

    def checked_path_sync(self, digest: str) -> Path:
        """Where the blob's bytes lie, which were read through and will never change. Errors as `read`. For worker
        threads."""
        self.check_sync(digest)
        return self._path(digest)

    def open_checked_sync(self, digest: str) -> BufferedReader:
        """The blob's file, which was read through. Errors as `read`. For worker threads."""
        self.check_sync(digest)
        return self.open_sync(digest)

    def open_sync(self, digest: str) -> BufferedReader:
        """The blob's file, unchecked. BlobMissingError, BlobUnreadableError; ValueError for what is no digest. For
        worker threads."""
        with _as_blob_error(digest):
            return self._path(digest).open("rb")

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


@contextmanager
def _as_blob_error(digest: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise BlobMissingError(digest) from None
    except OSError as error:
        raise BlobUnreadableError(digest, error.strerror or str(error)) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
