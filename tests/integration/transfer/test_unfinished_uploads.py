"""Of a bucket's unfinished uploads, a sweep aborts those of dead attempts of its own job, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.sync_engine.transfer.bandwidth import UNLIMITED
from services.sync_engine.transfer.rclone_place import RclonePlace
from services.sync_engine.transfer.rclone_remote import RcloneRemote
from services.sync_engine.transfer.remote_transport import RemoteTransport
from services.sync_engine.transfer.tools import RCLONE, Toolbox
from services.sync_engine.transfer.transfer_control import TransferControl
from tests.integration.transfer.unfinished_uploads import BUCKET, serving_bucket

INCOMING = "of/CONFOCAL 01/.labferry-incoming"


@pytest.mark.parametrize("remote", ["far", "renamed"])
def test_those_of_dead_attempts_alone(tmp_path: Path, remote: str) -> None:
    dead = [f"{INCOMING}/job-1/0/a b+%2F.tif", f"{INCOMING}/job-1/0/sub/ü", f"{INCOMING}/job-2/1/x"]
    others = [
        f"{INCOMING}/job-10/0/of the attempt that lives",
        f"{INCOMING}/job2-1/0/of another job",
        f"{INCOMING}/job-1x/0/x",
        f"of/LISTER/{INCOMING}/job-1/0/of another equipment",
        "of/CONFOCAL 01/Cortex Q3 Pilot/somebody's",
        "job-1/0/somebody's",
    ]
    with serving_bucket(tmp_path) as bucket:
        with open(bucket.config, "a") as config:
            config.write(f"[renamed]\ntype = alias\nremote = far:{BUCKET}\n")
        bucket.begin([*dead, *others])
        path = "of/CONFOCAL 01" if remote == "renamed" else f"{BUCKET}/of/CONFOCAL 01"
        place = RclonePlace(RcloneRemote(remote, path, bucket.config), tools=Toolbox((RCLONE,)), bandwidth=UNLIMITED)
        transport = RemoteTransport(place, max_stream_bytes=1 << 30)
        transport.sweep("job", keep_attempt=10, control=TransferControl())
        assert bucket.unfinished() == {*others}
        transport.sweep("job", keep_attempt=None, control=TransferControl())
        assert bucket.unfinished() == {*others[1:]}
