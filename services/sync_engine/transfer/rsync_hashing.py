"""SHA-256 of files at the far end of an ssh connection, by its own sha256sum."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from services.sync_engine.transfer import far_scripts as scripts
from services.sync_engine.transfer.far_side import FarDigests
from services.sync_engine.transfer.rsync_failures import RSYNC_FAILURES
from services.sync_engine.transfer.ssh_session import SshSession
from services.sync_engine.transfer.tool_failures import tool_failure
from services.sync_engine.transfer.transport import FailureKind, TransferError, UnreadableFile

_HASH_BYTES = 64 << 20
_HASH_FILES = 1000
# So that a call's names stay far below what the far end takes for arguments.
_HASH_NAME_BYTES = 400_000
_SHA256 = re.compile(rb"[0-9a-f]{64}")
_HASHING = 2
"""Calls at once: a sha256sum fills one core."""
_VANISHED = b": No such file or directory"
_OF_ONE_FILE = (b": Input/output error", b": Structure needs cleaning", b": Bad message")
"""What the far system says of content that it can't read, or that doesn't have the checksum it should."""
_MOST_UNREAD = 20
_WITNESSES = 3


def hash_there(
    ssh: SshSession, root: bytes, folder: bytes, files: Mapping[bytes, int], hashed: Callable[[bytes, int], None]
) -> FarDigests:
    """As `FarSide.digests`, below the destination's folder `root`."""
    read = FarDigests()
    failures: list[_Unread] = []

    def hash_these(paths: Sequence[bytes]) -> None:
        answer = _ask(ssh, root, folder, paths)
        for path, digest in answer.found.items():
            read.found[path] = digest
            hashed(path, files[path])
        if answer.unread is not None:
            failures.append(answer.unread)

    with ThreadPoolExecutor(max_workers=_HASHING, thread_name_prefix="far hash") as threads:
        try:
            for _ in threads.map(hash_these, _portions(files)):
                pass
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    if failures:
        read.unreadable = _unreadable(failures, sorted(read.found), lambda paths: _ask(ssh, root, folder, paths))
    return read


class _Unread(NamedTuple):
    """Files of one call that the storage didn't read, its words, and the failure that it is if it reads no others."""

    paths: Sequence[bytes]
    words: str
    failure: TransferError


class _Answer(NamedTuple):
    found: dict[bytes, str]
    unread: _Unread | None


def _ask(ssh: SshSession, root: bytes, folder: bytes, paths: Sequence[bytes]) -> _Answer:
    found: dict[bytes, str] = {}
    # "-" alone would be its standard input.
    names = [b"./" + path for path in paths]
    done = ssh.run(scripts.HASH, [root, folder], names, per=_HASH_FILES)
    for line in done.stdout.split(b"\0")[:-1]:
        digest, _, path = line.partition(b" *./")
        if _SHA256.fullmatch(digest) is None:
            raise TransferError(
                FailureKind.TOOL_FAILED, f"the far sha256sum wrote {line[:200]!r} instead of a hash", [path]
            )
        found[path] = digest.decode("ascii")
    words = done.stderr.replace(scripts.ALIVE.encode() + b"\n", b"")
    lines = [line for line in words.splitlines() if line.strip()]
    if done.code == 0 or (lines and all(line.endswith(_VANISHED) for line in lines)):
        return _Answer(found, None)
    failure = tool_failure(RSYNC_FAILURES, "reading back", done.code, words.decode(errors="replace"))
    left = [path for path in paths if path not in found]
    # Which line is about which name can't be told of every name: all that are left must be of this kind.
    if len(lines) != len(left) or not all(line.endswith(_OF_ONE_FILE) for line in lines):
        raise failure
    return _Answer(found, _Unread(left, lines[0].rpartition(b": ")[2].decode(errors="replace"), failure))


def _unreadable(
    failures: Sequence[_Unread], read: Sequence[bytes], ask: Callable[[Sequence[bytes]], _Answer]
) -> list[UnreadableFile]:
    """The files that are asked for again and can't be read, where a few of those that were read still can: a bad sector
    is told from a storage that died meanwhile. TransferError when it isn't so."""
    unread = {path: one for one in failures for path in one.paths}
    first = failures[0].failure
    if not read or len(unread) > _MOST_UNREAD:
        raise first
    witnesses = random.sample(read, min(len(read), _WITNESSES))
    again = ask([*witnesses, *unread])
    if not all(path in again.found for path in witnesses) or again.found.keys() & unread.keys():
        raise first
    return [UnreadableFile(path, one.words) for path, one in sorted(unread.items())]


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
