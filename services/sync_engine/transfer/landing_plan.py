"""What an attempt has to send, given what the destination holds already; every conflict is found before anything
lands.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.present import (
    Different,
    differing_error,
    digest_at_destination,
    names_present,
)
from services.sync_engine.transfer.source_file import SourceFiles, copied_from
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import CopiedFile, EntryKind, SourceEntry


@dataclass(frozen=True, slots=True)
class LandingPlan:
    """`settled` files are at the destination already; `replaceable` names this job's own unproven earlier copies, which
    are among those to `send`."""

    folders: tuple[SourceEntry, ...]
    send: tuple[SourceEntry, ...]
    settled: tuple[CopiedFile, ...]
    replaceable: frozenset[bytes]

    @property
    def bytes_to_send(self) -> int:
        """Their sizes together."""
        return sum(entry.size for entry in self.send)


def plan_landing(
    root: DestinationRoot,
    source: SourceFiles,
    target: bytes,
    entries: Sequence[SourceEntry],
    landed: Mapping[bytes, Sequence[CopiedFile]],
    control: TransferControl,
) -> LandingPlan:
    """Raises TransferError: DESTINATION_FILE_DIFFERS with all the files that this job did not write and that differ."""
    present = names_present(root, target)
    send: list[SourceEntry] = []
    settled: list[CopiedFile] = []
    replaceable: set[bytes] = set()
    differing: list[Different] = []
    for entry in entries:
        if entry.path not in present:
            if entry.kind is not EntryKind.DIRECTORY:
                send.append(entry)
            continue
        if present[entry.path] is not entry.kind:
            differing.append(Different(entry.path, None, None))
            continue
        if entry.kind is EntryKind.DIRECTORY:
            continue
        status = root.status(target + b"/" + entry.path)
        if status is None:
            send.append(entry)
            continue
        records = landed.get(entry.path, ())
        sent_before = next((record for record in records if _still_holds(record, entry, status)), None)
        if sent_before is not None:
            settled.append(sent_before)
            continue
        control.raise_if_stopped()
        there = digest_at_destination(root, target, entry.path, entry.kind, control.look)
        here = source.sha256(entry, control.look)
        if here == there:
            settled.append(copied_from(entry, here))
        elif there in {record.sha256 for record in records}:
            replaceable.add(entry.path)
            send.append(entry)
        else:
            differing.append(Different(entry.path, there, here))
    if differing:
        raise differing_error(differing)
    folders = tuple(entry for entry in entries if entry.kind is EntryKind.DIRECTORY)
    return LandingPlan(folders, tuple(send), tuple(settled), frozenset(replaceable))


def _still_holds(record: CopiedFile, entry: SourceEntry, there: os.stat_result) -> bool:
    # Only a reason not to send it again: verification reads back what the destination holds in any case.
    return there.st_size == entry.size and (
        (record.size, record.mtime_ns, record.ctime_ns, record.inode, record.kind, record.link_target)
        == (entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode, entry.kind, entry.link_target)
    )
