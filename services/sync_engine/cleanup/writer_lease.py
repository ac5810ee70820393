"""Whether another program has a file open for writing: the system's leases are the only way to know. Blocking."""

from __future__ import annotations

import errno
import fcntl
import signal

from services.sync_engine.transfer.system_error import words_of

_ALLOWED_BY = "nas_cleanup.delete_without_lease: true allows to delete it all the same"
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM})


class OpenForWritingError(Exception):
    """Another program may write to the file at any time."""


class NoLeaseError(Exception):
    """The system gives no lease, so nobody knows; the message says why, and what to do."""


def lease_against_writers(descriptor: int) -> None:
    """Takes a read lease on a file that is open for reading alone: who has it open for writing makes that fail; who
    opens it later waits until it is closed here. OpenForWritingError; NoLeaseError for a file of another user, where
    the engine has no CAP_LEASE, and for a filesystem without leases."""
    try:
        # A break of the lease is told by a signal; this one is ignored by default.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise OpenForWritingError("another program has it open for writing") from error
        raise NoLeaseError(f"nobody can tell whether another program writes to it: {_why(error)}") from error


def is_still_leased(descriptor: int) -> bool:
    """Whether nobody asked to write to the file since the lease was taken."""
    return fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_RDLCK


def _why(error: OSError) -> str:
    if error.errno in _NOT_OURS:
        return (
            "the engine doesn't own it and has no CAP_LEASE (systemd gives it by AmbientCapabilities=CAP_LEASE); "
            + _ALLOWED_BY
        )
    return f"its filesystem gives no leases ({words_of(error)}); {_ALLOWED_BY}"
