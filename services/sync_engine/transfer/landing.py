"""Giving whole files their final names: never in the place of anything, and never through a name half written.

What is there already is accepted when it holds the same, replaced when this job's log proves that this job put it
there and nobody ever relied on it, and refused otherwise.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.file_copy import WholeFile
from services.sync_engine.transfer.incoming import IncomingFolder
from services.sync_engine.transfer.libc import rename_noreplace
from services.sync_engine.transfer.present import Different, difference_from, differing_error
from services.sync_engine.transfer.system_error import destination_error
from services.sync_engine.transfer.transport import FailureKind, TransferError

_NO_EXCLUSIVE_RENAME = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


class Landing:
    """Moves files of one attempt into place; one thread at a time."""

    def __init__(
        self, root: DestinationRoot, incoming: IncomingFolder, target: bytes, replaceable: frozenset[bytes]
    ) -> None:
        """`target` is the run's folder below the root; `replaceable` holds this job's own unproven earlier copies."""
        self._root = root
        self._incoming = incoming
        self._target = target
        self._replaceable = replaceable
        self._renames_exclusively = True

    def land(self, files: Sequence[WholeFile]) -> None:
        """Raises TransferError; DESTINATION_FILE_DIFFERS names every file of the batch that met a different one."""
        self._root.refuse_if_gone()
        differing: list[Different] = []
        for file in files:
            place = self._target + b"/" + file.copied.path
            self._root.ensure_folder(place.rpartition(b"/")[0])
            if file.copied.path in self._replaceable:
                self._put_aside(place, file.copied.path)
            if not self._move(file, place):
                different = difference_from(self._root, self._target, file.copied)
                if different is not None:
                    differing.append(different)
        if differing:
            raise differing_error(differing)

    def _put_aside(self, place: bytes, path: bytes) -> None:
        try:
            with (
                self._root.folder_of(place) as (folder, name),
                self._incoming.folder_of(self._incoming.new_name()) as (aside, kept),
            ):
                os.rename(name, kept, src_dir_fd=folder, dst_dir_fd=aside)
        except FileNotFoundError:
            return
        except OSError as error:
            raise destination_error(error, "putting aside this job's own earlier copy of", path) from error

    def _move(self, file: WholeFile, place: bytes) -> bool:
        """False when the name is taken, or it can't be told."""
        try:
            if self._renames_exclusively:
                try:
                    with self._ends(file, place) as (whole, number, folder, name):
                        rename_noreplace(whole, number, folder, name)
                    return True
                except OSError as error:
                    if error.errno not in _NO_EXCLUSIVE_RENAME:
                        raise
                    self._renames_exclusively = False
            self._link(file, place)
        except FileExistsError:
            return False
        except FileNotFoundError as error:
            # A network file system may repeat a request whose answer was lost; the second says "not there".
            if self._root.status(place) is not None:
                return False
            raise destination_error(error, "moving into place", file.copied.path) from error
        except OSError as error:
            raise destination_error(error, "moving into place", file.copied.path) from error
        return True

    def _link(self, file: WholeFile, place: bytes) -> None:
        with self._ends(file, place) as (whole, number, folder, name):
            try:
                os.link(number, name, src_dir_fd=whole, dst_dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                if error.errno in _NO_LINKS:
                    raise TransferError(
                        FailureKind.CONFIGURATION,
                        "the destination can move a file into place neither by an exclusive rename nor by a link",
                        [file.copied.path],
                    ) from error
                raise
            os.unlink(number, dir_fd=whole)

    @contextmanager
    def _ends(self, file: WholeFile, place: bytes) -> Iterator[tuple[int, bytes, int, bytes]]:
        """The open folders, and the names in them, that the file is moved between."""
        with self._incoming.folder_of(file.incoming_name) as source, self._root.folder_of(place) as target:
            yield *source, *target
