"""Setting files of a run aside at a destination behind a tool: under `.labferry-superseded`, beside the projects."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress

from services.sync_engine.transfer.far_side import FarSide
from services.sync_engine.transfer.incoming import INCOMING
from services.sync_engine.transfer.path_order import InStep
from services.sync_engine.transfer.superseded import SUPERSEDED
from services.sync_engine.transfer.transport import TransferError

_ASIDE = b"-aside-"


def kept_under(place: bytes, job_id: str, attempt: int) -> bytes:
    """Where the attempt keeps what it sets aside of the run at `place`."""
    return SUPERSEDED + b"/" + f"{job_id}-{attempt}".encode("ascii") + b"/" + place


def is_guard(name: bytes, job_id: str) -> bool:
    """Whether a folder in the incoming one says that a setting aside of the job is wanted."""
    return name.startswith(job_id.encode("ascii") + _ASIDE)


def set_aside(
    far: FarSide, place: bytes, paths: Sequence[bytes], *, job_id: str, attempt: int, replaced: bool
) -> tuple[Sequence[bytes], bool]:
    """As `Transport.set_aside`, and whether the names are free now."""
    # What an engine that lost the job still moves ends before anything is looked at.
    remove_beginning_with(far, job_id.encode("ascii") + _ASIDE)
    guard = INCOMING + b"/" + job_id.encode("ascii") + _ASIDE + secrets.token_hex(8).encode("ascii")
    keep = kept_under(place, job_id, attempt)
    kept = {name.path for name in far.names(keep)}
    pairs = []
    present, wanted = InStep(far.names(place)), sorted(paths)
    listed = {path for path in wanted if present.at(path) is not None}
    unlisted = far.unlisted(place, [path for path in wanted if path not in listed])
    there = [path for path in wanted if path in listed or path in unlisted]
    for path in there:
        suffix = b"." + secrets.token_hex(4).encode("ascii") if path in kept else b""
        pairs.append((place + b"/" + path, keep + b"/" + path + suffix))
    if not pairs:
        return there, True
    try:
        return there, far.move(pairs, guard, replaced=replaced)
    finally:
        with suppress(TransferError):
            far.remove(guard)


def remove_beginning_with(far: FarSide, beginning: bytes) -> None:
    """Folders in the incoming one."""
    for name in far.children(INCOMING):
        if name.startswith(beginning):
            far.remove(INCOMING + b"/" + name)
