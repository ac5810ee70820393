"""What a tool left out though it said that all was well: known before anything of it gets its name."""

from __future__ import annotations

from collections.abc import Sequence

from services.sync_engine.transfer.far_side import FarName
from services.sync_engine.transfer.path_order import InStep
from services.sync_engine.transfer.system_error import shown
from services.sync_engine.transfer.transport import EntryKind, FailureKind, SourceEntry, TransferError


def refuse_left_out(sent: Sequence[SourceEntry], arrived: Sequence[FarName]) -> None:
    """TOOL_FAILED that names what was sent and isn't there, or is of another kind or size. Both lists are sorted by
    path."""
    there = InStep(arrived)
    left = [entry.path for entry in sent if not _is_it(entry, there.at(entry.path))]
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise TransferError(
            FailureKind.TOOL_FAILED,
            f"the tool said that all was well, but left out {shown(left[0])}{more} at the destination",
            left,
        )


def _is_it(entry: SourceEntry, there: FarName | None) -> bool:
    if there is None or there.kind is not entry.kind:
        return False
    return entry.kind is EntryKind.DIRECTORY or there.size == entry.size
