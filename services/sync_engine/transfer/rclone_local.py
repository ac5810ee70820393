"""A remote that is a folder of this machine. rclone writes through symlinks that somebody put there, and tells of none:
so this machine looks itself, as `mounted` does, right before.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from libs.run_tree.beneath import SymlinkOnTheWayError, folder_beneath, status_beneath
from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.far_side import FarName
from services.sync_engine.transfer.path_order import walk_in_order
from services.sync_engine.transfer.present import Different, differing_error
from services.sync_engine.transfer.spilled_list import spilled
from services.sync_engine.transfer.system_error import destination_error
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import EntryKind


class RcloneLocal:
    """`root` is the remote's folder. Every failure is a TransferError: NETWORK when it isn't there."""

    def __init__(self, root: bytes, control: TransferControl) -> None:
        self.root = root
        self._control = control

    def refuse_links(self, folders: Iterable[bytes]) -> None:
        """DESTINATION_FILE_DIFFERS when one of these folders, or one above it, is there and is something else."""
        with DestinationRoot(Path(os.fsdecode(self.root))) as root:
            for folder in folders:
                _is_folder(root, folder)

    def holds_any(self, folder: bytes, paths: Sequence[bytes]) -> bool:
        """As `FarSide.holds_any`."""
        with DestinationRoot(Path(os.fsdecode(self.root))) as root:
            return any(root.status(folder + b"/" + path) is not None for path in paths)

    def names(self, folder: bytes) -> Sequence[FarName]:
        """As `FarSide.names`. DESTINATION_FILE_DIFFERS when something is mounted there."""
        with DestinationRoot(Path(os.fsdecode(self.root))) as root:

            def listing(below: bytes) -> Iterator[FarName]:
                self._control.look()
                place = folder + b"/" + below if folder and below else folder or below
                try:
                    yield from _listing(root, place, below + b"/" if below else b"")
                except OSError as error:
                    raise destination_error(error, "listing", place) from error

            if not _is_folder(root, folder):
                return ()
            root.refuse_mounts_in(folder)
            return spilled(FarName, walk_in_order(FarName, listing, lambda name: name.kind is EntryKind.DIRECTORY))


def _is_folder(root: DestinationRoot, folder: bytes) -> bool:
    """False when nothing is there."""
    try:
        status = status_beneath(folder or b".", dir_fd=root.fd)
    except FileNotFoundError:
        return False
    except (NotADirectoryError, SymlinkOnTheWayError) as error:
        raise differing_error([Different(folder, None, None)]) from error
    except OSError as error:
        raise destination_error(error, "looking at", folder) from error
    if not stat.S_ISDIR(status.st_mode):
        raise differing_error([Different(folder, None, None)])
    return True


def _listing(root: DestinationRoot, place: bytes, prefix: bytes) -> Iterator[FarName]:
    with folder_beneath(place or b".", dir_fd=root.fd) as opened, os.scandir(opened) as names:
        for name in names:
            status = name.stat(follow_symlinks=False)
            target = os.readlink(name.name, dir_fd=opened) if stat.S_ISLNK(status.st_mode) else None
            yield FarName(
                prefix + os.fsencode(name.name),
                _KINDS.get(stat.S_IFMT(status.st_mode)),
                status.st_size,
                None if target is None else os.fsencode(target),
            )


_KINDS = {stat.S_IFREG: EntryKind.FILE, stat.S_IFDIR: EntryKind.DIRECTORY, stat.S_IFLNK: EntryKind.SYMLINK}
