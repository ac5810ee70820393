"""What an errno means for a transfer: one table a side, the system's own words in the message.

A mounted folder authenticates nobody itself: EACCES and EPERM come from permissions that IT sets on the share, so
they are CONFIGURATION; only expired, revoked or rejected keys (Kerberos on NFS and SMB) are AUTHENTICATION. An errno
that no table lists at the destination counts as NETWORK: trying again harms nothing and ends by the retry schedule.
"""

from __future__ import annotations

import errno
import os

from services.sync_engine.transfer.transport import FailureKind, TransferError

_AT_DESTINATION = {
    errno.ENOSPC: FailureKind.DESTINATION_FULL,
    errno.EDQUOT: FailureKind.DESTINATION_FULL,
    errno.EROFS: FailureKind.CONFIGURATION,
    errno.EACCES: FailureKind.CONFIGURATION,
    errno.EPERM: FailureKind.CONFIGURATION,
    errno.EFBIG: FailureKind.CONFIGURATION,
    errno.ENOKEY: FailureKind.AUTHENTICATION,
    errno.EKEYEXPIRED: FailureKind.AUTHENTICATION,
    errno.EKEYREVOKED: FailureKind.AUTHENTICATION,
    errno.EKEYREJECTED: FailureKind.AUTHENTICATION,
    # A symlink where a folder should be is nothing that this job may write through.
    errno.ELOOP: FailureKind.DESTINATION_FILE_DIFFERS,
    errno.ENAMETOOLONG: FailureKind.NAME_NOT_POSSIBLE,
    errno.EILSEQ: FailureKind.NAME_NOT_POSSIBLE,
    errno.EINVAL: FailureKind.NAME_NOT_POSSIBLE,
    errno.EBADF: FailureKind.INTERNAL,
}
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})
_SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What this machine has too little of, and others may give back: open files, memory."""


def shown(path: bytes) -> str:
    """A path for people: bytes that aren't UTF-8 show U+FFFD."""
    return path.decode("utf-8", errors="replace")


def destination_error(error: OSError, doing: str, path: bytes = b"") -> TransferError:
    """What failed at the destination, while `doing` ("writing", "making a folder")."""
    kind = _AT_DESTINATION.get(error.errno or 0, FailureKind.NETWORK)
    where = f" {shown(path)}" if path else ""
    return TransferError(kind, f"{doing}{where} at the destination: {words_of(error)}", [path] if path else [])


def source_error(error: OSError, path: bytes) -> TransferError:
    """What failed on this machine when a file of the run was read."""
    if error.errno in _GONE:
        return TransferError(FailureKind.LOCAL_FILE_VANISHED, f"{shown(path)} vanished: {words_of(error)}", [path])
    if (short := shortage(error)) is not None:
        return short
    # ELOOP: O_NOFOLLOW met a symlink where the scan saw a file.
    if error.errno == errno.ELOOP:
        return source_changed(path)
    return TransferError(
        FailureKind.LOCAL_FILE_UNREADABLE, f"{shown(path)} can't be read on this machine: {words_of(error)}", [path]
    )


def shortage(error: OSError) -> TransferError | None:
    """When this machine has too little of something for the moment: no failure of a file, nor of the destination."""
    if error.errno not in _SHORT_OF:
        return None
    return TransferError(FailureKind.NETWORK, f"this machine is short of something: {words_of(error)}")


def source_changed(path: bytes) -> TransferError:
    """A file of the run is not what the scan saw."""
    return TransferError(FailureKind.SOURCE_CHANGED, f"{shown(path)} changed while it was read", [path])


def words_of(error: OSError) -> str:
    """The system's own."""
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error))
