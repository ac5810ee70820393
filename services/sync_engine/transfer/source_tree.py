"""What a run holds on this machine: one scan, and the difference between two (SPEC §4)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from libs.run_tree.beneath import folder_beneath
from libs.run_tree.manifest import CACHE_FOLDER, is_changing_file
from libs.run_tree.run_path import leads_into_run
from services.sync_engine.transfer.path_order import walk_in_order
from services.sync_engine.transfer.spilled_list import spilled
from services.sync_engine.transfer.system_error import shown, source_changed, source_error
from services.sync_engine.transfer.transport import EntryKind, FailureKind, SourceEntry, TransferError


def scan_run(run_folder: Path, *, of_project: bool = False) -> Sequence[SourceEntry]:
    """Every file, folder and symlink of the run but the changing files, sorted by path. No symlink is followed.
    `of_project`: the folder is a project's own; its runs are left out.

    TransferError: SYMLINK_LEAVES_RUN; LOCAL_FILE_VANISHED when there is no such folder; LOCAL_FILE_UNREADABLE for a
    folder that can't be listed and for sockets, pipes and devices; SOURCE_CHANGED when a name vanished during the scan.
    """
    root = os.fsencode(run_folder)
    real_root = _real(root, b".")
    leaving: list[bytes] = []

    def listing(folder: bytes) -> Iterator[SourceEntry]:
        for entry in _scan_folder(root, folder):
            if of_project and entry.kind is EntryKind.DIRECTORY and leads_into_run(entry.path):
                continue
            if entry.link_target is not None and _leaves(real_root, entry, entry.link_target):
                leaving.append(entry.path)
            yield entry

    entries = spilled(SourceEntry, walk_in_order(SourceEntry, listing, lambda entry: entry.kind is EntryKind.DIRECTORY))
    if leaving:
        raise TransferError(
            FailureKind.SYMLINK_LEAVES_RUN, f"{len(leaving)} symlink(s) lead out of the run", sorted(leaving)
        )
    return entries


def _scan_folder(root: bytes, folder: bytes) -> Iterator[SourceEntry]:
    try:
        with folder_beneath(root + b"/" + folder) as opened, os.scandir(opened) as names:
            prefix = folder + b"/" if folder else b""
            for name in names:
                path = prefix + os.fsencode(name.name)
                # Only the cache folder holds changing files: tens of thousands of data files needn't be asked. A folder
                # that is called like one is none.
                if folder != CACHE_FOLDER or not is_changing_file(path) or name.is_dir(follow_symlinks=False):
                    yield _entry(path, name, opened)
    except OSError as error:
        raise _listing_error(error, folder) from error


def _listing_error(error: OSError, folder: bytes) -> TransferError:
    if isinstance(error, FileNotFoundError) and folder:
        return TransferError(
            FailureKind.SOURCE_CHANGED, f"something in {shown(folder)} vanished while it was listed", [folder]
        )
    return source_error(error, folder or b".")


def _entry(path: bytes, name: os.DirEntry[str], folder: int) -> SourceEntry:
    status = name.stat(follow_symlinks=False)
    target: bytes | None = None
    size = status.st_size
    if stat.S_ISREG(status.st_mode):
        kind = EntryKind.FILE
    elif stat.S_ISDIR(status.st_mode):
        kind, size = EntryKind.DIRECTORY, 0
    elif stat.S_ISLNK(status.st_mode):
        kind, target = EntryKind.SYMLINK, os.fsencode(os.readlink(name.name, dir_fd=folder))
        size = len(target)
    else:
        raise TransferError(
            FailureKind.LOCAL_FILE_UNREADABLE,
            f"{shown(path)} is a socket, pipe or device; a run may hold files, folders and symlinks only",
            [path],
        )
    return SourceEntry(path, kind, size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, target)


def _real(place: bytes, path: bytes) -> bytes:
    try:
        return os.path.realpath(place)
    except OSError as error:
        # EINVAL: what was a symlink a moment ago is none any more.
        raise source_changed(path) from error


def _leaves(real_root: bytes, entry: SourceEntry, target: bytes) -> bool:
    # An absolute target may point into the run here, but at the destination it would point away from the copy.
    if target.startswith(b"/"):
        return True
    resolved = _real(os.path.join(real_root, os.path.dirname(entry.path), target), entry.path)
    return os.path.commonpath((real_root, resolved)) != real_root


@dataclass(frozen=True, slots=True)
class TreeDifference:
    """What happened to a run between two scans, by path, sorted. Of folders only their being there counts."""

    added: tuple[bytes, ...]
    changed: tuple[bytes, ...]
    removed: tuple[bytes, ...]

    @property
    def is_empty(self) -> bool:
        """Nothing happened."""
        return not (self.added or self.changed or self.removed)


def difference(before: Sequence[SourceEntry], after: Sequence[SourceEntry]) -> TreeDifference:
    """Compares kind, size, mtime, ctime, inode and link target of every name."""
    added: list[bytes] = []
    changed: list[bytes] = []
    removed: list[bytes] = []
    old, new = iter(before), iter(after)
    was, now = next(old, None), next(new, None)
    while was is not None or now is not None:
        if now is None or (was is not None and was.path < now.path):
            assert was is not None
            removed.append(was.path)
            was = next(old, None)
        elif was is None or now.path < was.path:
            added.append(now.path)
            now = next(new, None)
        else:
            if _signature(was) != _signature(now):
                changed.append(now.path)
            was, now = next(old, None), next(new, None)
    return TreeDifference(tuple(added), tuple(changed), tuple(removed))


def _signature(entry: SourceEntry) -> tuple[object, ...]:
    # A lock or temporary file beside creation.json changes its folder's times; that is no change of the run.
    if entry.kind is EntryKind.DIRECTORY:
        return (entry.kind,)
    return (entry.kind, entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode, entry.link_target)
