"""Uploads in parts to a bucket of a real S3 server, begun and never ended."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from services.sync_engine.transfer.tool_process import find_tool
from tests.integration.transfer.far_servers import PATIENCE, rclone_serving

BUCKET = "bucket"
PART = 5 << 20
"""The smallest that S3 knows."""


class Bucket:
    """A bucket, and the file in which rclone has it as `far`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._folder = folder
        self.config = folder / "rclone.conf"
        self.config.write_text(self.configured(port))

    def configured(self, port: int) -> str:
        """What stands in rclone's configuration for a server at that port, as if files were large at 5 MiB."""
        return (
            f"[far]\ntype = s3\nprovider = Rclone\nendpoint = http://127.0.0.1:{port}\naccess_key_id = someone\n"
            f"secret_access_key = something\nupload_cutoff = 5Mi\nchunk_size = 5Mi\nupload_concurrency = 1\n"
            "use_multipart_uploads = true\n"
        )

    def unfinished(self) -> set[str]:
        """The keys of all uploads that didn't end."""
        command = (*self._rclone(), "backend", "list-multipart-uploads", f"far:{BUCKET}")
        told = subprocess.run(command, check=False, capture_output=True)
        if b"NoSuchUpload" in told.stderr:
            return set()
        return {upload["Key"] for upload in json.loads(told.stdout)[BUCKET]}

    def begin(self, keys: Sequence[str]) -> None:
        """As a program that is killed in the middle."""
        sources = self._folder / "sources"
        for key in keys:
            (sources / key).parent.mkdir(parents=True, exist_ok=True)
            with open(sources / key, "wb") as file:
                file.truncate(2 * PART)
        brake = ("--bwlimit", "1M", "--transfers", str(len(keys)))
        with subprocess.Popen([*self._rclone(), "copy", *brake, str(sources), f"far:{BUCKET}"]) as process:
            try:
                self.until({*keys})
            finally:
                process.kill()

    def until(self, keys: set[str]) -> None:
        """Until all these are begun."""
        end = time.monotonic() + PATIENCE
        while not self.unfinished() >= keys:
            assert time.monotonic() < end, (self.unfinished(), keys)

    def _rclone(self) -> Sequence[str]:
        return find_tool("rclone"), "--config", str(self.config)


@contextmanager
def serving_bucket(folder: Path) -> Iterator[Bucket]:
    """A server with one bucket, and nothing in it."""
    served = folder / "served"
    (served / BUCKET).mkdir(parents=True)
    with rclone_serving("s3", served, folder, "--auth-key", "someone,something") as port:
        yield Bucket(folder, port)
