"""Whether a server behind rclone keeps times that not every storage can hold, by trying."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime

from services.sync_engine.transfer.far_times import EXACT_ENOUGH, FAR_TIMES
from services.sync_engine.transfer.private_folder import private_folder, write_private
from services.sync_engine.transfer.rclone_daemon import RcloneDaemon, RcloneError


def try_far_times(daemon: RcloneDaemon, fs: str, folder: bytes) -> bool | None:
    """Puts a byte with each into `folder`, which is the caller's to remove. None where the server took none of them,
    or where this machine can't date a file so."""
    with private_folder() as private:
        for seconds in FAR_TIMES:
            write_private(private / str(seconds), [b"x"])
            os.utime(private / str(seconds), (seconds, seconds))
            if (private / str(seconds)).stat().st_mtime != seconds:
                return None

        def put(seconds: int) -> datetime | None:
            place = f"{folder.decode()}/dated{seconds}"
            with suppress(RcloneError):
                daemon.call(
                    "operations/copyfile",
                    srcFs=str(private),
                    srcRemote=str(seconds),
                    dstFs=fs,
                    dstRemote=place,
                    _config={"NoCheckDest": True},
                )
                item = daemon.call("operations/stat", fs=fs, remote=place)["item"]
                return None if item is None else datetime.fromisoformat(item["ModTime"])
            return None

        arrived = daemon.attend(FAR_TIMES, put)
    off = [abs(time.timestamp() - wanted) for time, wanted in zip(arrived, FAR_TIMES, strict=True) if time is not None]
    return all(seconds <= EXACT_ENOUGH for seconds in off) if off else None
