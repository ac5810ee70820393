"""A bucket whose policy lets nobody see or abort unfinished uploads: that is told, and no job fails by it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.sync_engine.transfer.bandwidth import UNLIMITED
from services.sync_engine.transfer.rclone_place import RclonePlace
from services.sync_engine.transfer.rclone_remote import RcloneRemote
from services.sync_engine.transfer.remote_transport import RemoteTransport
from services.sync_engine.transfer.tools import RCLONE, Toolbox
from tests.integration.transfer.carrying import Carrying, write
from tests.integration.transfer.http_gate import gate_before
from tests.integration.transfer.unfinished_uploads import BUCKET, serving_bucket

DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@pytest.mark.parametrize(
    ("forbidden", "told"),
    [
        (
            r"^GET .*[?&]uploads",
            r"unfinished uploads below far:bucket/nas/\.labferry-incoming aren't swept: .*denied",
        ),
        ("^DELETE .*uploadId=", r"parts of 1 unfinished uploads stay below far:bucket/nas/\.labferry-incoming/job-0"),
    ],
)
def test_it_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, forbidden: str, told: str) -> None:
    source = tmp_path / "run"
    source.mkdir()
    write(source, b"a b.tif", b"pixels")
    with serving_bucket(tmp_path) as bucket, gate_before(bucket.port, forbidden, 403, DENIED) as gate:
        bucket.begin(["nas/.labferry-incoming/job-0/0/x"])
        config = tmp_path / "policed.conf"
        config.write_text(bucket.configured(gate.port))
        place = RclonePlace(RcloneRemote("far", f"{BUCKET}/nas", config), tools=Toolbox((RCLONE,)), bandwidth=UNLIMITED)
        carrying = Carrying(source, tmp_path, RemoteTransport(place, max_stream_bytes=1 << 30))
        carrying.transport.sweep("job", keep_attempt=None, control=carrying.control)
        assert carrying.verify(carrying.copy()).proven
        assert bucket.unfinished() == {"nas/.labferry-incoming/job-0/0/x"}
    assert re.search(told, caplog.text, re.IGNORECASE), caplog.text
