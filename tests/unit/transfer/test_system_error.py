"""What the system's error numbers mean for a transfer."""

from __future__ import annotations

import errno
import os

import pytest

from services.sync_engine.transfer.system_error import destination_error, source_error
from services.sync_engine.transfer.transport import FailureKind


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, FailureKind.DESTINATION_FULL),
        (errno.EDQUOT, FailureKind.DESTINATION_FULL),
        (errno.EROFS, FailureKind.CONFIGURATION),
        (errno.EACCES, FailureKind.CONFIGURATION),
        (errno.EPERM, FailureKind.CONFIGURATION),
        (errno.EKEYEXPIRED, FailureKind.AUTHENTICATION),
        (errno.ENOKEY, FailureKind.AUTHENTICATION),
        (errno.EIO, FailureKind.NETWORK),
        (errno.ESTALE, FailureKind.NETWORK),
        (errno.ENOTCONN, FailureKind.NETWORK),
        (errno.EHOSTDOWN, FailureKind.NETWORK),
        (errno.ETIMEDOUT, FailureKind.NETWORK),
        (errno.EMFILE, FailureKind.NETWORK),
        (errno.ENOENT, FailureKind.NETWORK),
        (errno.ENAMETOOLONG, FailureKind.NAME_NOT_POSSIBLE),
        (errno.EILSEQ, FailureKind.NAME_NOT_POSSIBLE),
    ],
)
def test_at_the_destination(number: int, kind: FailureKind) -> None:
    failure = destination_error(system(number), "writing", b"a\xff")
    assert failure.kind is kind
    assert failure.paths == (b"a\xff",)
    assert os.strerror(number) in failure.message
    assert "a\ufffd" in failure.message


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, FailureKind.LOCAL_FILE_VANISHED),
        (errno.ENOTDIR, FailureKind.LOCAL_FILE_VANISHED),
        (errno.ELOOP, FailureKind.SOURCE_CHANGED),
        (errno.EACCES, FailureKind.LOCAL_FILE_UNREADABLE),
        (errno.EIO, FailureKind.LOCAL_FILE_UNREADABLE),
        (errno.EROFS, FailureKind.LOCAL_FILE_UNREADABLE),
        (errno.EMFILE, FailureKind.NETWORK),
        (errno.ENOMEM, FailureKind.NETWORK),
    ],
)
def test_on_this_machine(number: int, kind: FailureKind) -> None:
    assert source_error(system(number), b"a").kind is kind
