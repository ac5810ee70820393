"""The run's files on this machine, compared with what was proven at every destination. Blocking."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from itertools import groupby
from pathlib import Path

from libs.run_tree.manifest import CACHE_FOLDER
from services.sync_engine.cleanup.interlocks import LocalFacts
from services.sync_engine.cleanup.ticket import Ticket
from services.sync_engine.cleanup.writer_lease import NoLeaseError, OpenForWritingError, lease_against_writers
from services.sync_engine.runs.location import LocatedRun
from services.sync_engine.transfer.path_order import InStep, by_path
from services.sync_engine.transfer.source_file import SourceFiles, copied_from
from services.sync_engine.transfer.source_tree import scan_run
from services.sync_engine.transfer.spilled_list import ListWriter
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import CopiedFile, EntryKind, FailureKind, SourceEntry, TransferError


@dataclass(frozen=True, slots=True)
class Proven:
    """A file that every destination was proven to hold, with one hash: each one's record of it."""

    path: bytes
    copies: Sequence[CopiedFile]


def proven_everywhere(lists: Sequence[Sequence[CopiedFile]]) -> Iterator[Proven]:
    """What every list holds with the same content, sorted by path; `lists` has one a destination, each so sorted."""
    for path, found in groupby(merge(*lists, key=by_path), by_path):
        copies = list(found)
        if len(copies) == len(lists) and len({(f.sha256, f.kind) for f in copies}) == 1:
            yield Proven(path, copies)


def look_at_local_files(
    located: LocatedRun, lists: Sequence[Sequence[CopiedFile]], control: TransferControl
) -> LocalFacts:
    """Hashes every file of the run that is there, and asks whether who writes to it would be seen. Files in the cache
    folder belong to it and are left out. TransferStoppedError."""
    try:
        entries = scan_run(located.folder, of_project=located.path.is_project)
    except TransferError as error:
        return LocalFacts(Ticket(()), problem=f"the run can't be looked at: {error.message}")
    source = SourceFiles(os.fsencode(located.folder))
    ticketed = ListWriter(CopiedFile)
    changed: list[str] = []
    added: list[str] = []
    unreadable: list[str] = []
    unleased = ""
    proven = InStep(proven_everywhere(lists))
    for entry in entries:
        control.look()
        if entry.kind is EntryKind.DIRECTORY or in_cache(entry.path):
            continue
        known = proven.at(entry.path)
        if known is None:
            added.append(shown(entry.path))
            continue
        try:
            file = as_proven(source, entry, known.copies, control)
        except TransferError as error:
            unreadable.append(error.message)
            continue
        if file is None:
            changed.append(f"{shown(entry.path)} changed")
        elif file.mtime_ns not in {one.mtime_ns for one in known.copies}:
            then, now = _at(known.copies[0].mtime_ns), _at(file.mtime_ns)
            changed.append(f"{shown(entry.path)} has another time than was verified, {now} for {then}")
        else:
            ticketed.append(file)
            unleased = unleased or _without_lease(source, entry)
    here = InStep(entry for entry in entries if entry.kind is not EntryKind.DIRECTORY)
    missing = sum(here.at(one.path) is None for one in proven_everywhere(lists) if not in_cache(one.path))
    return LocalFacts(Ticket(ticketed.finish()), changed, added, missing, unleased=unleased, unreadable=unreadable)


def in_cache(path: bytes) -> bool:
    """Whether the path lies in the run's cache folder."""
    return path.startswith(CACHE_FOLDER + b"/")


def as_proven(
    source: SourceFiles, entry: SourceEntry, known: Sequence[CopiedFile], control: TransferControl
) -> CopiedFile | None:
    """The file as it lies there, if its content is what was proven. TransferError when it can't be read."""
    proven = known[0]
    if entry.kind is not proven.kind or entry.size != proven.size:
        return None
    try:
        sha256 = source.sha256(entry, control.look)
    except TransferError as error:
        if error.kind is FailureKind.LOCAL_FILE_UNREADABLE:
            raise
        # It changed or vanished.
        return None
    return copied_from(entry, sha256) if sha256 == proven.sha256 else None


def _at(mtime_ns: int) -> str:
    """As `touch -d` takes it."""
    seconds, nanoseconds = divmod(mtime_ns, 1_000_000_000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09}Z"
    except (ValueError, OverflowError):
        # No calendar has it.
        return f"@{seconds}.{nanoseconds:09}"


def _without_lease(source: SourceFiles, entry: SourceEntry) -> str:
    """Why the system gives no lease on the file; empty: it does, or the file's own turn will tell."""
    if entry.kind is EntryKind.SYMLINK:
        return ""
    try:
        descriptor = source.open_alone(entry)
    except TransferError:
        return ""
    try:
        lease_against_writers(descriptor)
    except OpenForWritingError:
        return ""
    except NoLeaseError as error:
        return f"{shown(entry.path)}: {error}"
    finally:
        os.close(descriptor)
    return ""


def files_left(located: LocatedRun) -> Iterator[bytes]:
    """Every name outside the cache folder that is no folder, sorted. TransferError as `scan_run`."""
    for entry in scan_run(located.folder, of_project=located.path.is_project):
        if entry.kind is not EntryKind.DIRECTORY and not in_cache(entry.path):
            yield entry.path


def is_still_there(run_folder: Path, file: CopiedFile) -> bool:
    """Whether the file's name is still taken."""
    return os.path.lexists(os.fsencode(run_folder) + b"/" + file.path)
