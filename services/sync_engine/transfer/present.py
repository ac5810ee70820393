"""What the destination holds of a run already, and whether it is the same (SPEC §4, never overwrite what was
proven).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

import msgspec

from libs.run_tree.beneath import SymlinkOnTheWayError, link_beneath, open_to_read
from libs.run_tree.run_path import leads_into_run
from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.path_order import walk_in_order
from services.sync_engine.transfer.system_error import destination_error, shown
from services.sync_engine.transfer.transport import CopiedFile, DifferingFile, EntryKind, FailureKind, TransferError
from services.sync_engine.transfer.uncached_read import NotAFileError, hash_uncached

_FOLDER = os.O_RDONLY | os.O_DIRECTORY


class PresentName(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A name at the destination, relative to the run's folder. `kind` None: a pipe or the like."""

    path: bytes
    kind: EntryKind | None


def names_present(root: DestinationRoot, target: bytes) -> Iterator[PresentName]:
    """Every name below the run's folder at the destination, sorted by path; none when there is no such folder. Of a
    project's folder, its own without its runs. No symlink is followed."""
    of_project = b"/" not in target
    if root.status(target) is None:
        return

    def listing(folder: bytes) -> Iterator[PresentName]:
        prefix = folder + b"/" if folder else b""
        for name, kind in _listing(root, target + b"/" + folder if folder else target):
            path = prefix + name
            if not (of_project and kind is EntryKind.DIRECTORY and leads_into_run(path)):
                yield PresentName(path, kind)

    yield from walk_in_order(PresentName, listing, lambda name: name.kind is EntryKind.DIRECTORY)


def _listing(root: DestinationRoot, folder: bytes) -> Iterator[tuple[bytes, EntryKind | None]]:
    try:
        descriptor = root.open(folder, _FOLDER)
        try:
            with os.scandir(descriptor) as names:
                # scandir of an open folder gives str; fsencode gives the bytes back exactly.
                for name in names:
                    yield os.fsencode(name.name), _kind(name)
        finally:
            os.close(descriptor)
    except (NotADirectoryError, SymlinkOnTheWayError) as error:
        raise TransferError(
            FailureKind.DESTINATION_FILE_DIFFERS, f"{shown(folder)} is no folder at the destination", [folder]
        ) from error
    except OSError as error:
        raise destination_error(error, "listing", folder) from error


def _kind(name: os.DirEntry[str]) -> EntryKind | None:
    # The listing itself tells the kind on most file systems: no call a name.
    if name.is_file(follow_symlinks=False):
        return EntryKind.FILE
    if name.is_symlink():
        return EntryKind.SYMLINK
    return EntryKind.DIRECTORY if name.is_dir(follow_symlinks=False) else None


def digest_at_destination(
    root: DestinationRoot, target: bytes, path: bytes, kind: EntryKind, heard: Callable[[], None] = lambda: None
) -> str | None:
    """SHA-256 of the file's content, or of the symlink's target; None when something of another kind is there.

    `path` is relative to the run's folder `target`. The file is synced first: it may come from a process that died
    before it could. `heard` is called for each block of a large file, and may raise to end it.
    """
    place = target + b"/" + path
    try:
        if kind is EntryKind.SYMLINK:
            return hashlib.sha256(link_beneath(place, dir_fd=root.fd)[0]).hexdigest()
        size = _sync_present(root, place)
        return hash_uncached(root.fd, place, size, heard).sha256
    except NotAFileError:
        return None
    except OSError as error:
        present = root.status(place)
        if present is not None and stat.S_ISLNK(present.st_mode) != (kind is EntryKind.SYMLINK):
            return None
        raise destination_error(error, "reading", path) from error


def _sync_present(root: DestinationRoot, place: bytes) -> int:
    descriptor = open_to_read(place, dir_fd=root.fd)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotAFileError
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return status.st_size


def difference_from(root: DestinationRoot, target: bytes, copied: CopiedFile) -> Different | None:
    """None when the run's folder `target` holds the file with what was copied."""
    if root.status(target + b"/" + copied.path) is None:
        return Different(copied.path, None, copied.sha256)
    there = digest_at_destination(root, target, copied.path, copied.kind)
    return None if there == copied.sha256 else Different(copied.path, there, copied.sha256)


@dataclass(frozen=True, slots=True)
class Different:
    """A name of which source and destination hold different things. A hash is None where no file is; both are where
    the things are of different kinds."""

    path: bytes
    there: str | None
    here: str | None


def differing_error(files: Sequence[Different]) -> TransferError:
    """The refusal that names files at the destination that this job did not write and that differ."""
    files = sorted(files, key=attrgetter("path"))
    first = shown(files[0].path)
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    if files[0].there is None and files[0].here is None:
        what = f"something of another kind (file, folder or symlink) in the place of {first}{more}"
    else:
        what = f"another {first}{more} that this job did not write"
    return TransferError(
        FailureKind.DESTINATION_FILE_DIFFERS,
        f"the destination holds {what}; nothing was overwritten",
        [f.path for f in files],
        [DifferingFile(f.path, f.there or "", f.here or "") for f in files],
    )
