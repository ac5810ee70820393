"""A server without room that doesn't say so: SFTP has one word for whatever fails, and of a small file rclone notices
only that less arrived than was sent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from services.sync_engine.transfer.incoming import INCOMING
from services.sync_engine.transfer.private_folder import private_folder, write_private
from services.sync_engine.transfer.rclone_daemon import RcloneDaemon
from services.sync_engine.transfer.transport import FailureKind, TransferError

_TRIAL = INCOMING.decode() + "/room"
"""One name for all: what a killed engine leaves of its trial is replaced, and removed, by the next one's."""
# More than fits into what a file system may still have for a file of a few bytes.
_TRIAL_BYTES = 64 << 10
_SFTP_WORD = "SSH_FX_FAILURE"
_ARRIVED = re.compile(r"sizes differ (?:src\(.*\) )?(\d+) vs (?:dst\(.*\) )?(\d+)", re.DOTALL)
_MEANING = (
    "the storage takes no data at present: an SFTP server says no more than this when its disk or a quota is full, and"
    " counts as free what is kept for root"
)


@contextmanager
def told_when_full(daemon: RcloneDaemon, fs: str) -> Iterator[None]:
    """What fails in the block by words that may mean a full storage is DESTINATION_FULL, with those words, if a small
    file can't be written there either. `daemon`'s thread alone may do so."""
    try:
        yield
    except TransferError as failure:
        if _says_so(failure) or (_may_be_full(failure) and _takes_nothing(daemon, fs)):
            raise TransferError(
                FailureKind.DESTINATION_FULL, f"{failure.message} ({_MEANING})", failure.paths
            ) from failure
        raise


def _says_so(failure: TransferError) -> bool:
    return failure.kind is FailureKind.DESTINATION_FULL and _SFTP_WORD in failure.message


def _may_be_full(failure: TransferError) -> bool:
    return _is_short(failure) or (failure.kind is FailureKind.NETWORK and _SFTP_WORD in failure.message)


def _is_short(failure: TransferError) -> bool:
    sizes = _ARRIVED.search(failure.message) if failure.kind is FailureKind.HASH_MISMATCH else None
    return sizes is not None and int(sizes[2]) < int(sizes[1])


def _takes_nothing(daemon: RcloneDaemon, fs: str) -> bool:
    """A folder in which nothing can be made isn't full: it may be read-only."""
    with private_folder() as folder:
        write_private(folder / "room", [os.urandom(_TRIAL_BYTES)])
        try:
            daemon.must(
                "looking for room",
                "operations/copyfile",
                srcFs=str(folder),
                srcRemote="room",
                dstFs=fs,
                dstRemote=_TRIAL,
                _config={"NoCheckDest": True},
            )
        except TransferError as refusal:
            return refusal.kind is FailureKind.DESTINATION_FULL or _is_short(refusal)
        finally:
            with suppress(TransferError):
                daemon.must("removing", "operations/deletefile", fs=fs, remote=_TRIAL)
    return False
