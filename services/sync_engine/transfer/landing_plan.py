"""What an attempt has to send, given what the destination holds already; every conflict is found before anything
lands.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.path_order import InStep
from services.sync_engine.transfer.present import (
    Different,
    differing_error,
    digest_at_destination,
    names_present,
)
from services.sync_engine.transfer.source_file import SourceFiles, copied_from
from services.sync_engine.transfer.spilled_list import ListWriter
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import CopiedFile, EntryKind, SourceEntry


@dataclass(frozen=True, slots=True)
class LandingPlan:
    """`settled` files are at the destination already; `replaceable` names this job's own unproven earlier copies, which
    are among those to `send`."""

    folders: Sequence[SourceEntry]
    send: Sequence[SourceEntry]
    settled: Sequence[CopiedFile]
    replaceable: frozenset[bytes]
    bytes_to_send: int


class LandingDecisions:
    """Gathers a plan, entry by entry in the order of their paths."""

    def __init__(self) -> None:
        self._folders = ListWriter(SourceEntry)
        self._send = ListWriter(SourceEntry)
        self._settled = ListWriter(CopiedFile)
        self._replaceable: set[bytes] = set()
        self._differing: list[Different] = []
        self._bytes_to_send = 0

    def folder(self, entry: SourceEntry) -> None:
        self._folders.append(entry)

    def send(self, entry: SourceEntry, *, replace: bool = False) -> None:
        """`replace`: in the place of this job's own unproven earlier copy."""
        self._send.append(entry)
        self._bytes_to_send += entry.size
        if replace:
            self._replaceable.add(entry.path)

    def settled(self, file: CopiedFile) -> None:
        self._settled.append(file)

    def differs(self, path: bytes, there: str | None, here: str | None) -> None:
        self._differing.append(Different(path, there, here))

    def plan(self) -> LandingPlan:
        """DESTINATION_FILE_DIFFERS with all the files that this job did not write and that differ."""
        if self._differing:
            raise differing_error(self._differing)
        return LandingPlan(
            self._folders.finish(),
            self._send.finish(),
            self._settled.finish(),
            frozenset(self._replaceable),
            self._bytes_to_send,
        )


def plan_landing(
    root: DestinationRoot,
    source: SourceFiles,
    target: bytes,
    entries: Sequence[SourceEntry],
    landed: Sequence[CopiedFile],
    cleared: AbstractSet[bytes],
    control: TransferControl,
) -> LandingPlan:
    """Raises TransferError: DESTINATION_FILE_DIFFERS with all the files that this job did not write and that differ."""
    present, before = InStep(names_present(root, target)), InStep(landed)
    decided = LandingDecisions()
    for entry in entries:
        control.look()
        there = present.at(entry.path)
        if entry.kind is EntryKind.DIRECTORY:
            decided.folder(entry)
        if there is None or entry.path in cleared:
            if entry.kind is not EntryKind.DIRECTORY:
                decided.send(entry)
        elif there.kind is not entry.kind:
            decided.differs(entry.path, None, None)
        elif entry.kind is not EntryKind.DIRECTORY:
            _decide(decided, root, source, target, entry, before.all_at(entry.path), control)
    return decided.plan()


def _decide(
    decided: LandingDecisions,
    root: DestinationRoot,
    source: SourceFiles,
    target: bytes,
    entry: SourceEntry,
    records: Sequence[CopiedFile],
    control: TransferControl,
) -> None:
    """About a name that is taken by something of the same kind."""
    status = root.status(target + b"/" + entry.path)
    if status is None:
        decided.send(entry)
        return
    sent_before = next((record for record in records if _still_holds(record, entry, status)), None)
    if sent_before is not None:
        decided.settled(sent_before)
        return
    there = digest_at_destination(root, target, entry.path, entry.kind, control.look)
    here = source.sha256(entry, control.look)
    if here == there:
        decided.settled(copied_from(entry, here))
    elif there in {record.sha256 for record in records}:
        decided.send(entry, replace=True)
    else:
        decided.differs(entry.path, there, here)


def _still_holds(record: CopiedFile, entry: SourceEntry, there: os.stat_result) -> bool:
    # Only a reason not to send it again: verification reads back what the destination holds in any case.
    return there.st_size == entry.size and (
        (record.size, record.mtime_ns, record.ctime_ns, record.inode, record.kind, record.link_target)
        == (entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode, entry.kind, entry.link_target)
    )
