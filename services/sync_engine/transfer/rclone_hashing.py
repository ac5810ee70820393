"""SHA-256 of a remote's files: by the remote itself, or downloaded and hashed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress

from services.sync_engine.transfer.far_side import FarDigests
from services.sync_engine.transfer.rclone_daemon import RcloneDaemon, RcloneError
from services.sync_engine.transfer.rclone_failures import RCLONE_FAILURES
from services.sync_engine.transfer.tool_failures import tool_failure
from services.sync_engine.transfer.transport import FailureKind, TransferError

_TOGETHER = 2000


class RcloneHashing:
    """`local_root` is the remote's folder where that lies on this machine."""

    def __init__(self, daemon: RcloneDaemon, fs: str, local_root: bytes | None, *, download: bool) -> None:
        self._daemon = daemon
        self._fs = fs
        self._local_root = local_root
        self._download = download

    def digests(
        self, folder: bytes, files: Mapping[bytes, int], max_stream_bytes: int, hashed: Callable[[bytes, int], None]
    ) -> FarDigests:
        """As `FarSide.digests`."""
        read = FarDigests()
        if self._download:
            read.oversize = [path for path, size in files.items() if size > max_stream_bytes]
        too_large = set(read.oversize)
        prefix = folder + b"/" if folder else b""

        def hash_one(path: bytes) -> None:
            found = self._hash(prefix + path, path, files[path])
            if found is not None:
                read.found[path] = found
                hashed(path, files[path])

        paths = [path for path in files if path not in too_large]
        for start in range(0, len(paths), _TOGETHER):
            self._daemon.attend(paths[start : start + _TOGETHER], hash_one)
        return read

    def _hash(self, place: bytes, path: bytes, size: int) -> str | None:
        if self._local_root is not None:
            _drop_cached(os.path.join(self._local_root, place))
        try:
            with self._daemon.control.quiet(size):
                answer = self._daemon.call(
                    "operations/hashsumfile",
                    fs=self._fs,
                    remote=place.decode(),
                    hashType="sha256",
                    download=self._download,
                )
        except RcloneError as refusal:
            if "object not found" in refusal.words:
                return None
            raise tool_failure(RCLONE_FAILURES, "reading back", None, refusal.words, [path]) from refusal
        digest = str(answer["hash"])
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise TransferError(FailureKind.CONFIGURATION, f"{self._fs} gave no SHA-256: {digest!r}", [path])
        return digest


def _drop_cached(place: bytes) -> None:
    """A remote on this machine is read by rclone through this machine's cache: it is emptied first."""
    with suppress(OSError):
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
