"""SHA-256 of files at the far end of an ssh connection, by its own sha256sum."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from services.sync_engine.transfer import far_scripts as scripts
from services.sync_engine.transfer.far_side import FarDigests
from services.sync_engine.transfer.rsync_failures import RSYNC_FAILURES
from services.sync_engine.transfer.ssh_session import SshSession
from services.sync_engine.transfer.tool_failures import tool_failure
from services.sync_engine.transfer.transport import FailureKind, TransferError

_HASH_BYTES = 64 << 20
_HASH_FILES = 1000
# So that a call's names stay far below what the far end takes for arguments.
_HASH_NAME_BYTES = 400_000
_SHA256 = re.compile(rb"[0-9a-f]{64}")
_HASHING = 2
"""Calls at once: a sha256sum fills one core."""


def hash_there(
    ssh: SshSession, root: bytes, folder: bytes, files: Mapping[bytes, int], hashed: Callable[[bytes, int], None]
) -> FarDigests:
    """As `FarSide.digests`, below the destination's folder `root`."""
    read = FarDigests()

    def hash_these(paths: Sequence[bytes]) -> None:
        # "-" alone would be its standard input.
        names = [b"./" + path for path in paths]
        done = ssh.run(scripts.HASH, [root, folder], names, per=_HASH_FILES)
        for line in done.stdout.split(b"\0")[:-1]:
            digest, _, path = line.partition(b" *./")
            if _SHA256.fullmatch(digest) is None:
                raise TransferError(
                    FailureKind.TOOL_FAILED, f"the far sha256sum wrote {line[:200]!r} instead of a hash", [path]
                )
            read.found[path] = digest.decode("ascii")
            hashed(path, files[path])
        words = done.stderr.replace(scripts.ALIVE.encode() + b"\n", b"")
        if done.code != 0 and not _only_vanished(words):
            raise tool_failure(RSYNC_FAILURES, "reading back", done.code, words.decode(errors="replace"))

    with ThreadPoolExecutor(max_workers=_HASHING, thread_name_prefix="far hash") as threads:
        try:
            for _ in threads.map(hash_these, _portions(files)):
                pass
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    return read


def _portions(files: Mapping[bytes, int]) -> Iterator[list[bytes]]:
    """So many that each takes a moment: progress, and a stop, come between two."""
    portion: list[bytes] = []
    nbytes = name_bytes = 0
    for path, size in files.items():
        full = nbytes + size > _HASH_BYTES or name_bytes + len(path) > _HASH_NAME_BYTES
        if portion and (full or len(portion) == _HASH_FILES):
            yield portion
            portion, nbytes, name_bytes = [], 0, 0
        portion.append(path)
        nbytes += size
        name_bytes += len(path)
    if portion:
        yield portion


def _only_vanished(words: bytes) -> bool:
    lines = [line for line in words.splitlines() if line.strip()]
    return bool(lines) and all(line.endswith(b"No such file or directory") for line in lines)
