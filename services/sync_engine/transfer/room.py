"""Whether what is to be sent has room at the destination. Pure."""

from __future__ import annotations

from services.sync_engine.transfer.transport import FailureKind, TransferError


def refuse_if_full(free: int | None, needed: int) -> None:
    """Bytes; `free` None: it can't be known. TransferError DESTINATION_FULL."""
    if free is not None and needed > free:
        raise TransferError(
            FailureKind.DESTINATION_FULL, f"{needed:,} bytes are to be sent and {free:,} are free at the destination"
        )
