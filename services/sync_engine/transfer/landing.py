"""Giving whole files their final names: never in the place of anything, and never through a name half written.

What is there already is accepted when it holds the same, replaced when this job's log proves that this job put it
there and nobody ever relied on it, and refused otherwise.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from libs.run_tree.folder_in_hand import FolderInHand
from libs.run_tree.libc import rename_noreplace
from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.file_copy import WholeFile
from services.sync_engine.transfer.incoming import IncomingFolder
from services.sync_engine.transfer.present import Different, difference_from, differing_error
from services.sync_engine.transfer.system_error import destination_error
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import FailureKind, TransferError

NO_EXCLUSIVE_RENAME = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
"""What a file system answers that can't rename without replacing."""
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
"""What a file system answers that has no links."""


class Landing:
    """Moves files of one attempt into place; one thread at a time."""

    def __init__(
        self,
        root: DestinationRoot,
        incoming: IncomingFolder,
        target: bytes,
        replaceable: frozenset[bytes],
        *,
        renames_exclusively: bool,
        control: TransferControl,
    ) -> None:
        """`target` is the run's folder below the root; `replaceable` holds this job's own unproven earlier copies.
        `renames_exclusively`: as probed."""
        self._root = root
        self._incoming = incoming
        self._target = target
        self._replaceable = replaceable
        self._renames_exclusively = renames_exclusively
        self._control = control
        self._in_hand = FolderInHand(dir_fd=root.fd)

    def land(self, files: Sequence[WholeFile]) -> None:
        """Raises TransferError; DESTINATION_FILE_DIFFERS names every file of the batch that met a different one.
        TransferStoppedError before one of this job's own earlier copies would be moved."""
        self._root.refuse_if_gone()
        try:
            differing = [different for file in files if (different := self._land(file)) is not None]
        finally:
            self._in_hand.let_go()
        if differing:
            raise differing_error(differing)

    def _land(self, file: WholeFile) -> Different | None:
        place = self._target + b"/" + file.copied.path
        self._root.ensure_folder(place.rpartition(b"/")[0])
        if file.copied.path in self._replaceable:
            self._put_aside(place, file.copied.path)
        return None if self._move(file, place) else difference_from(self._root, self._target, file.copied)

    def _put_aside(self, place: bytes, path: bytes) -> None:
        try:
            folder, name = self._in_hand.of(place)
            aside, kept = self._incoming.new_name()
            # As late as can be: what is there by now may be what another engine proved.
            self._control.raise_if_stopped()
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
                    rename_noreplace(*file.incoming, *self._in_hand.of(place))
                    return True
                except OSError as error:
                    if error.errno not in NO_EXCLUSIVE_RENAME:
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
        (whole, number), (folder, name) = file.incoming, self._in_hand.of(place)
        try:
            os.link(number, name, src_dir_fd=whole, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno in NO_LINKS:
                raise TransferError(
                    FailureKind.CONFIGURATION,
                    "the destination can move a file into place neither by an exclusive rename nor by a link",
                    [file.copied.path],
                ) from error
            raise
        os.unlink(number, dir_fd=whole)
