"""Keeping what may no longer count as a copy: it is moved beside the data, never deleted (SPEC §4, Mismatch)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence

from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.system_error import destination_error
from services.sync_engine.transfer.transfer_control import TransferControl

SUPERSEDED = b".labferry-superseded"


def set_aside(
    root: DestinationRoot,
    target: bytes,
    paths: Sequence[bytes],
    *,
    job_id: str,
    attempt: int,
    control: TransferControl,
) -> Sequence[bytes]:
    """Moves files of the run's folder `target` to `.labferry-superseded/<job>-<attempt>/<target>/<path>`; those moved.

    A file that is not there any more was moved before; one that has the same name there already gets a suffix.
    """
    root.refuse_if_gone()
    keep = SUPERSEDED + b"/" + f"{job_id}-{attempt}".encode("ascii")
    folders: set[bytes] = set()
    moved: list[bytes] = []
    for path in paths:
        control.look()
        place = target + b"/" + path
        if root.status(place) is None:
            continue
        kept = keep + b"/" + place
        root.ensure_folder(kept.rpartition(b"/")[0])
        if root.status(kept) is not None:
            kept += b"." + secrets.token_hex(4).encode("ascii")
        try:
            with root.folder_of(place) as (here, name), root.folder_of(kept) as (there, kept_name):
                # As late as can be: by now it may be what another engine proved there.
                control.raise_if_stopped()
                os.rename(name, kept_name, src_dir_fd=here, dst_dir_fd=there)
        except OSError as error:
            raise destination_error(error, "setting aside", path) from error
        moved.append(path)
        folders |= {place.rpartition(b"/")[0], kept.rpartition(b"/")[0]}
    for folder in sorted(folders):
        root.fsync_folder(folder)
    return moved
