"""A bucket whose policy lets nobody see or abort unfinished uploads: that is told, and no job fails by it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from services.sync_engine.transfer.bandwidth import UNLIMITED
from services.sync_engine.transfer.rclone_place import RclonePlace
from services.sync_engine.transfer.rclone_remote import RcloneRemote
from services.sync_engine.transfer.remote_transport import RemoteTransport
from services.sync_engine.transfer.tools import RCLONE, Toolbox
from tests.integration.transfer.carrying import Carrying, write
from tests.integration.transfer.unfinished_uploads import BUCKET, serving_bucket

DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@contextmanager
def policed(port: int, forbidden: str) -> Iterator[int]:
    """In front of a server of S3 that knows no policies: what is found by `forbidden` in a request's first line is
    denied."""

    class Gate(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if re.search(forbidden, self.requestline):
                self._answer(403, {"Content-Type": "application/xml"}, DENIED)
                return
            behind = HTTPConnection("127.0.0.1", port)
            # With its `Host`, which is signed.
            behind.request(self.command, self.path, content, dict(self.headers))
            answer = behind.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name != "Transfer-Encoding"}
            self._answer(answer.status, headers, answer.read())

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name != "Content-Length":
                    self.send_header(name, value)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Tests say what is wrong themselves."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Gate) as gate:
        threading.Thread(target=gate.serve_forever).start()
        try:
            yield gate.server_port
        finally:
            gate.shutdown()


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
    with serving_bucket(tmp_path) as bucket, policed(bucket.port, forbidden) as port:
        bucket.begin(["nas/.labferry-incoming/job-0/0/x"])
        config = tmp_path / "policed.conf"
        config.write_text(bucket.configured(port))
        place = RclonePlace(RcloneRemote("far", f"{BUCKET}/nas", config), tools=Toolbox((RCLONE,)), bandwidth=UNLIMITED)
        carrying = Carrying(source, tmp_path, RemoteTransport(place, max_stream_bytes=1 << 30))
        carrying.transport.sweep("job", keep_attempt=None, control=carrying.control)
        assert carrying.verify(carrying.copy()).proven
        assert bucket.unfinished() == {"nas/.labferry-incoming/job-0/0/x"}
    assert re.search(told, caplog.text, re.IGNORECASE), caplog.text
