"""What an attempt has to send to a destination behind a tool; conflicts are found before anything lands."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from services.sync_engine.transfer.far_side import FarName, FarSide
from services.sync_engine.transfer.landing_plan import LandingPlan
from services.sync_engine.transfer.present import Different, differing_error
from services.sync_engine.transfer.source_file import SourceFiles, copied_from
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import CopiedFile, EntryKind, SourceEntry


def plan_remote(
    far: FarSide,
    source: SourceFiles,
    target: bytes,
    entries: Sequence[SourceEntry],
    landed: Mapping[bytes, Sequence[CopiedFile]],
    max_stream_bytes: int,
    control: TransferControl,
) -> LandingPlan:
    """As `plan_landing`, but that what is there counts by its hash alone: never by size and time."""
    present = far.names(target)
    there = present_digests(
        far, target, {e.path: present[e.path] for e in entries if e.path in present}, max_stream_bytes
    )
    send: list[SourceEntry] = []
    settled: list[CopiedFile] = []
    replaceable: set[bytes] = set()
    differing: list[Different] = []
    for entry in entries:
        name = present.get(entry.path)
        if name is None:
            if entry.kind is not EntryKind.DIRECTORY:
                send.append(entry)
        elif name.kind is not entry.kind:
            differing.append(Different(entry.path, None, None))
        elif entry.kind is not EntryKind.DIRECTORY:
            control.raise_if_stopped()
            records = landed.get(entry.path, ())
            found = there.get(entry.path)
            own = next((r for r in records if _is_of(r, entry) and _may_be(r, name, found)), None)
            here = own.sha256 if own is not None else source.sha256(entry, control.look)
            if own is not None:
                settled.append(own)
            elif here == found:
                settled.append(copied_from(entry, here))
            elif found is not None and found in {r.sha256 for r in records}:
                replaceable.add(entry.path)
                send.append(entry)
            else:
                differing.append(Different(entry.path, found, here))
    if differing:
        raise differing_error(differing)
    folders = tuple(entry for entry in entries if entry.kind is EntryKind.DIRECTORY)
    return LandingPlan(folders, tuple(send), tuple(settled), frozenset(replaceable))


def present_digests(
    far: FarSide, target: bytes, names: Mapping[bytes, FarName], max_stream_bytes: int
) -> dict[bytes, str]:
    """SHA-256 of files and of symlinks' targets; files that are too large to be downloaded are left out."""
    files = {path: name.size for path, name in names.items() if name.kind is EntryKind.FILE}
    found = dict(far.digests(target, files, max_stream_bytes, lambda path, size: None).found) if files else {}
    for path, name in names.items():
        if name.link_target is not None:
            found[path] = hashlib.sha256(name.link_target).hexdigest()
    return found


def _is_of(record: CopiedFile, entry: SourceEntry) -> bool:
    return (record.size, record.mtime_ns, record.ctime_ns, record.inode, record.kind, record.link_target) == (
        entry.size,
        entry.mtime_ns,
        entry.ctime_ns,
        entry.inode,
        entry.kind,
        entry.link_target,
    )


def _may_be(record: CopiedFile, there: FarName, found: str | None) -> bool:
    # Of a file that is too large to be downloaded the log's word and the size must do: its verification asks for an
    # operator in any case.
    return record.sha256 == found if found is not None else record.size == there.size
