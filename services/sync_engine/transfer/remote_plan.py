"""What an attempt has to send to a destination behind a tool; conflicts are found before anything lands."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from services.sync_engine.transfer.far_side import FarName, FarSide
from services.sync_engine.transfer.landing_plan import LandingDecisions, LandingPlan
from services.sync_engine.transfer.name_plan import refuse_taken_names
from services.sync_engine.transfer.path_order import InStep
from services.sync_engine.transfer.source_file import SourceFiles, copied_from
from services.sync_engine.transfer.spilled_list import in_portions
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import CopiedFile, EntryKind, SourceEntry, TargetTraits

HASHED_TOGETHER = 2000
"""Files of which a destination is asked for hashes at once."""


def plan_remote(
    far: FarSide,
    source: SourceFiles,
    target: bytes,
    entries: Sequence[SourceEntry],
    landed: Sequence[CopiedFile],
    cleared: AbstractSet[bytes],
    max_stream_bytes: int,
    traits: TargetTraits,
    control: TransferControl,
) -> LandingPlan:
    """As `plan_landing`, but that what is there counts by its hash alone: never by size and time."""
    names = far.names(target)
    refuse_taken_names(entries, names, traits)
    present, before = InStep(names), InStep(landed)
    decided = LandingDecisions()
    for portion in in_portions(((entry, present.at(entry.path)) for entry in entries), HASHED_TOGETHER):
        there = present_digests(far, target, [name for _, name in portion if name is not None], max_stream_bytes)
        unlisted = far.unlisted(target, _to_be_sent(portion, cleared)) if names else frozenset()
        for entry, name in portion:
            if entry.path in unlisted:
                decided.differs(entry.path, None, None)
                continue
            if entry.kind is EntryKind.DIRECTORY and (name is None or far.dates_folders):
                decided.folder(entry)
            if name is None or entry.path in cleared:
                if entry.kind is not EntryKind.DIRECTORY:
                    decided.send(entry)
            elif name.kind is not entry.kind:
                decided.differs(entry.path, None, None)
            elif entry.kind is not EntryKind.DIRECTORY:
                control.raise_if_stopped()
                records, found = before.all_at(entry.path), there.get(entry.path)
                own = next((r for r in records if _is_of(r, entry) and _may_be(r, name, found)), None)
                here = own.sha256 if own is not None else source.sha256(entry, control.look)
                if own is not None:
                    decided.settled(own)
                elif here == found:
                    decided.settled(copied_from(entry, here))
                elif found is not None and found in {r.sha256 for r in records}:
                    decided.send(entry, replace=True)
                else:
                    decided.differs(entry.path, found, here)
    return decided.plan()


def _to_be_sent(portion: Sequence[tuple[SourceEntry, FarName | None]], cleared: AbstractSet[bytes]) -> list[bytes]:
    return [
        entry.path
        for entry, name in portion
        if name is None and entry.kind is not EntryKind.DIRECTORY and entry.path not in cleared
    ]


def present_digests(far: FarSide, target: bytes, names: Sequence[FarName], max_stream_bytes: int) -> dict[bytes, str]:
    """SHA-256 of files and of symlinks' targets; files that are too large to be downloaded are left out."""
    files = {name.path: name.size for name in names if name.kind is EntryKind.FILE}
    found = far.digests(target, files, max_stream_bytes, lambda path, size: None).readable() if files else {}
    for name in names:
        if name.link_target is not None:
            found[name.path] = hashlib.sha256(name.link_target).hexdigest()
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
