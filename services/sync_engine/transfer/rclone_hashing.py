"""SHA-256 of a remote's files: by the remote itself, or downloaded and hashed."""

from __future__ import annotations

import os
import random
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress

from libs.event_log.own_disk import on_own_disk
from services.sync_engine.transfer.far_side import FarDigests
from services.sync_engine.transfer.rclone_calls import for_each_together
from services.sync_engine.transfer.rclone_daemon import RcloneDaemon, RcloneError
from services.sync_engine.transfer.rclone_failures import RCLONE_FAILURES
from services.sync_engine.transfer.tool_failures import tool_failure
from services.sync_engine.transfer.transport import FailureKind, TransferError, UnreadableFile

_TOGETHER = 2000
_BREAKS_LINES = re.compile(rb"[\r\n]")
_LINE = re.compile(r"([0-9a-f]{64})  (.+)", re.DOTALL)
# What an encrypted file says whose content was changed, and a disk that can't read one.
_OF_ONE_FILE = re.compile("failed to authenticate decrypted block|input/output error", re.IGNORECASE)
_MOST_UNREAD = 20
# Each name is looked at by itself: without the first, whole folders are listed for them.
_NAMED_ONLY = {"NoTraverse": True, "Checkers": 4, "Transfers": 4}


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

        unread: dict[bytes, TransferError] = {}

        def hash_these(paths: Sequence[bytes]) -> None:
            for path, digest in self._hash_together(prefix, paths, files, unread):
                read.found[path] = digest
                hashed(path, files[path])

        paths = [path for path in files if path not in too_large]
        for start in range(0, len(paths), _TOGETHER):
            for_each_together(self._daemon, paths[start : start + _TOGETHER], files.__getitem__, hash_these)
        if unread:
            self._refuse_if_dead(prefix, files, read, unread)
            read.unreadable = [UnreadableFile(path, unread[path].message) for path in sorted(unread)]
        return read

    def _refuse_if_dead(
        self, prefix: bytes, files: Mapping[bytes, int], read: FarDigests, unread: Mapping[bytes, TransferError]
    ) -> None:
        """TransferError unless it is a few files that can't be read, and another one still can."""
        if not read.found or len(unread) > _MOST_UNREAD:
            raise next(iter(unread.values()))
        witness = random.choice(list(read.found))
        self._hash(prefix + witness, witness, files[witness])

    def _hash_together(
        self, prefix: bytes, paths: Sequence[bytes], sizes: Mapping[bytes, int], unread: dict[bytes, TransferError]
    ) -> Iterator[tuple[bytes, str]]:
        """Without those that aren't there, and those whose content alone can't be read, which go to `unread`. Of
        whatever isn't answered well rclone is asked again, for that one alone: so it says what is wrong with it."""
        found = self._hash_list(prefix, [path for path in paths if not _BREAKS_LINES.search(path)], sizes)
        for path in paths:
            try:
                digest = found.get(path) or self._hash(prefix + path, path, sizes[path])
            except TransferError as failure:
                if not _OF_ONE_FILE.search(failure.message):
                    raise
                unread[path] = failure
                continue
            if digest is not None:
                yield path, digest

    def _hash_list(self, prefix: bytes, paths: Sequence[bytes], sizes: Mapping[bytes, int]) -> dict[bytes, str]:
        if len(paths) < 2:
            return {}
        if self._local_root is not None:
            for path in paths:
                _drop_cached(os.path.join(self._local_root, prefix + path))
        with ExitStack() as kept:
            with on_own_disk():
                names = kept.enter_context(tempfile.NamedTemporaryFile(prefix="hash-", dir=self._daemon.folder))
                names.writelines(prefix + path + b"\n" for path in paths)
                names.flush()
            try:
                with self._daemon.control.quiet(sum(sizes[path] for path in paths)):
                    answer = self._daemon.call(
                        "operations/hashsum",
                        fs=self._fs,
                        hashType="sha256",
                        download=self._download,
                        _config=_NAMED_ONLY,
                        _filter={"FilesFromRaw": [names.name]},
                    )
            except RcloneError:
                return {}
        lines = (_LINE.fullmatch(line) for line in answer["hashsum"])
        hashes = {line[2].encode(): line[1] for line in lines if line is not None}
        return {path: hashes[prefix + path] for path in paths if prefix + path in hashes}

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
