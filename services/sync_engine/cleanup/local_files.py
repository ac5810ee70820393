"""The run's files on this machine, compared with what was proven at every destination. Blocking."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from libs.run_tree.manifest import CACHE_FOLDER
from services.sync_engine.cleanup.interlocks import LocalFacts
from services.sync_engine.cleanup.ticket import Ticket
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.transfer.source_file import SourceFiles, copied_from
from services.sync_engine.transfer.source_tree import scan_run
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transport import CopiedFile, EntryKind, SourceEntry, TransferError

Proven = Mapping[bytes, Sequence[CopiedFile]]
"""By path: how each destination was proven to hold the file. Only files that all of them hold, with one hash."""


def proven_everywhere(lists: Sequence[Sequence[CopiedFile]]) -> Proven:
    """What every list holds with the same content; `lists` has one a destination."""
    by_path: dict[bytes, list[CopiedFile]] = {}
    for files in lists:
        for file in files:
            by_path.setdefault(file.path, []).append(file)
    return {
        path: found
        for path, found in by_path.items()
        if len(found) == len(lists) and len({(f.sha256, f.kind) for f in found}) == 1
    }


def look_at_local_files(located: LocatedRun, proven: Proven) -> LocalFacts:
    """Hashes every file of the run that is there. Files in the cache folder belong to it and are left out."""
    try:
        entries = [
            e
            for e in scan_run(located.folder, of_project=located.path.is_project)
            if e.kind is not EntryKind.DIRECTORY and not in_cache(e.path)
        ]
    except TransferError as error:
        return LocalFacts(Ticket(()), problem=f"the run can't be looked at: {error.message}")
    source = SourceFiles(os.fsencode(located.folder))
    ticketed: list[CopiedFile] = []
    changed: list[str] = []
    added: list[str] = []
    for entry in entries:
        known = proven.get(entry.path)
        if known is None:
            added.append(shown(entry.path))
        elif (file := _as_proven(source, entry, known)) is None:
            changed.append(shown(entry.path))
        else:
            ticketed.append(file)
    here = {entry.path for entry in entries}
    missing = sum(path not in here for path in proven if not in_cache(path))
    return LocalFacts(Ticket(tuple(ticketed)), changed, added, missing)


def in_cache(path: bytes) -> bool:
    """Whether the path lies in the run's cache folder."""
    return path.startswith(CACHE_FOLDER + b"/")


def _as_proven(source: SourceFiles, entry: SourceEntry, known: Sequence[CopiedFile]) -> CopiedFile | None:
    """The file as it lies there, if that is what was proven: size and time of a copy's record, and the hash."""
    proven = known[0]
    if entry.kind is not proven.kind or (entry.size, entry.mtime_ns) not in {(f.size, f.mtime_ns) for f in known}:
        return None
    try:
        sha256 = source.sha256(entry)
    except TransferError:
        # It changed, vanished or can't be read: whatever it is, it is not known to be what was proven.
        return None
    return copied_from(entry, sha256) if sha256 == proven.sha256 else None


def files_left(located: LocatedRun) -> Sequence[bytes]:
    """Every name outside the cache folder that is no folder, sorted. TransferError as `scan_run`."""
    entries = scan_run(located.folder, of_project=located.path.is_project)
    return [e.path for e in entries if e.kind is not EntryKind.DIRECTORY and not in_cache(e.path)]


def still_there(run_folder: Path, files: Sequence[CopiedFile]) -> frozenset[bytes]:
    """Paths of those files whose name is still taken."""
    root = os.fsencode(run_folder)
    return frozenset(file.path for file in files if os.path.lexists(root + b"/" + file.path))
