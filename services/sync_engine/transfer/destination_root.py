"""The folder of one equipment at a mounted destination, held open for the length of one piece of work.

Everything below it is reached through the open folder. So a file system that is unmounted, or a folder that is moved
away, in the middle of a transfer can't make us fill whatever lies underneath its mount point.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from libs.run_tree.beneath import SymlinkOnTheWayError, folder_beneath, open_beneath, status_beneath
from libs.run_tree.mounts_below import mounts_below
from services.sync_engine.transfer.filesystem_kind import Filesystem, filesystem_of
from services.sync_engine.transfer.system_error import destination_error, shown
from services.sync_engine.transfer.transport import FailureKind, TransferError

# CIFS can't sync folders; what it answers then is no failure of the data.
_FOLDERS_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP})
_NEW_FOLDER_MODE = 0o777
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MOST_KNOWN_FOLDERS = 4096


class DestinationRoot:
    """The open folder. Paths given to its methods are relative to it; b"" is the folder itself.

    One thread at a time may call the methods that make folders; the others any thread.
    """

    def __init__(self, path: Path, *, is_real: bool = False) -> None:
        """Opens the folder, which must exist: it is never created, for then an unmounted mount point would be filled.

        `is_real`: the path was resolved already, and others may write where it leads: no symlink on the way is
        followed.
        """
        self.path = path
        try:
            self.fd = open_beneath(path, _FOLDER) if is_real else os.open(path, _FOLDER)
        except FileNotFoundError as error:
            # NETWORK, not CONFIGURATION: a server that is down overnight looks just like this, and jobs should
            # outlive it.
            raise TransferError(
                FailureKind.NETWORK, f"{path} is not there: the destination is not mounted, or the path is wrong"
            ) from error
        except NotADirectoryError as error:
            raise TransferError(FailureKind.CONFIGURATION, f"{path} is no folder") from error
        except OSError as error:
            raise destination_error(error, f"opening {path}") from error
        self._known_folders: set[bytes] = {b""}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)

    @cached_property
    def filesystem(self) -> Filesystem:
        """The file system of the folder. OSError."""
        return filesystem_of(self.fd)

    def refuse_if_gone(self) -> None:
        """TransferError NETWORK when the configured path no longer leads to the folder that was opened."""
        try:
            there = os.stat(self.path)
            opened = os.fstat(self.fd)
        except OSError as error:
            raise TransferError(
                FailureKind.NETWORK, f"the destination {self.path} vanished: {error.strerror}"
            ) from error
        if (there.st_dev, there.st_ino) != (opened.st_dev, opened.st_ino):
            raise TransferError(
                FailureKind.NETWORK, f"the destination {self.path} vanished: another folder is there now"
            )

    def refuse_mounts_in(self, relative: bytes) -> None:
        """TransferError DESTINATION_FILE_DIFFERS when something is mounted in the folder: what is read there may be the
        very files that were to be copied. A folder that isn't there is well."""
        try:
            with folder_beneath(relative, dir_fd=self.fd) as folder:
                elsewhere = mounts_below(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            self._refuse_what_is_no_folder(relative)
            raise destination_error(error, "looking for mounts in", relative) from error
        if elsewhere:
            raise TransferError(
                FailureKind.DESTINATION_FILE_DIFFERS,
                f"something is mounted in {shown(relative)} at the destination, at {shown(elsewhere[0])}: what lies "
                "there is not in this copy",
                elsewhere,
            )

    def free_bytes(self) -> int:
        """Room for an ordinary user."""
        try:
            room = os.fstatvfs(self.fd)
        except OSError as error:
            raise destination_error(error, "asking for free space") from error
        return room.f_bavail * room.f_frsize

    def open(self, relative: bytes, flags: int, mode: int = 0) -> int:
        """As `os.open`; a symlink on the way is not followed, whoever put it there. OSError."""
        return open_beneath(relative or b".", flags, mode, dir_fd=self.fd)

    @contextmanager
    def folder_of(self, relative: bytes) -> Iterator[tuple[int, bytes]]:
        """The open folder that a name lies in, and its last part there. OSError."""
        above, _, name = relative.rpartition(b"/")
        with folder_beneath(above or b".", dir_fd=self.fd) as folder:
            yield folder, name

    def status(self, relative: bytes) -> os.stat_result | None:
        """lstat; None when there is no such name."""
        try:
            return status_beneath(relative or b".", dir_fd=self.fd)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise destination_error(error, "looking at", relative) from error

    def names_in(self, relative: bytes) -> Sequence[bytes]:
        """What is in a folder; nothing when there is none of this name."""
        try:
            with folder_beneath(relative or b".", dir_fd=self.fd) as folder:
                return [os.fsencode(name) for name in os.listdir(folder)]
        except (FileNotFoundError, NotADirectoryError, SymlinkOnTheWayError):
            return ()
        except OSError as error:
            raise destination_error(error, "listing", relative) from error

    def ensure_folder(self, relative: bytes) -> None:
        """Makes the folder and those above it. DESTINATION_FILE_DIFFERS when something else has such a name."""
        missing: list[bytes] = []
        while relative not in self._known_folders:
            missing.append(relative)
            relative = relative.rpartition(b"/")[0]
        for folder in reversed(missing):
            try:
                with self.folder_of(folder) as (above, name):
                    os.mkdir(name, _NEW_FOLDER_MODE, dir_fd=above)
            except FileExistsError:
                self._refuse_if_no_folder(folder)
            except OSError as error:
                raise destination_error(error, "making the folder", folder) from error
            self._know(folder)

    def _know(self, folder: bytes) -> None:
        # A folder that was forgotten is made once more, and is found to be there.
        if len(self._known_folders) == _MOST_KNOWN_FOLDERS:
            self._known_folders = {b""}
        self._known_folders.add(folder)

    def _refuse_what_is_no_folder(self, relative: bytes) -> None:
        """The first on the way to it that is there."""
        ends = [place for place, letter in enumerate(relative) if letter == ord("/")]
        for end in (*ends, len(relative)):
            if self.status(relative[:end]) is not None:
                self._refuse_if_no_folder(relative[:end])

    def _refuse_if_no_folder(self, folder: bytes) -> None:
        # A symlink to a folder is none: writing through it would leave the destination.
        present = self.status(folder)
        if present is None or not stat.S_ISDIR(present.st_mode):
            raise TransferError(
                FailureKind.DESTINATION_FILE_DIFFERS,
                f"{shown(folder)} is a folder here and something else at the destination",
                [folder],
            )

    def date_folder(self, relative: bytes, mtime_ns: int) -> None:
        """Sets the folder's modification time, where the system lets us: a folder that was there before may be another
        user's, in which we may write and no more."""
        try:
            with self.folder_of(relative) as (above, name):
                os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=above, follow_symlinks=False)
        except PermissionError:
            return
        except OSError as error:
            raise destination_error(error, "dating the folder", relative) from error

    def fsync_folder(self, relative: bytes) -> None:
        """Makes the folder's names and time durable."""
        try:
            descriptor = self.open(relative, _FOLDER)
            try:
                fsync_folder(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise destination_error(error, "syncing the folder", relative) from error


def fsync_folder(descriptor: int) -> bool:
    """False when the file system can't sync folders by themselves. OSError."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _FOLDERS_CANNOT_SYNC:
            raise
        return False
    return True
