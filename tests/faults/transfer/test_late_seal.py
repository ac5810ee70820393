"""A bucket hears a name of a seal late, when another engine has sealed: what that one sealed stays."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.sync_engine.transfer.sealed_file import SealedFile
from services.sync_engine.transfer.transport import TransferError
from tests.faults.transfer.test_far_sides_fail import rclone
from tests.integration.transfer.carrying import TARGET, Carrying
from tests.integration.transfer.far_servers import rclone_serving
from tests.integration.transfer.http_gate import gate_before

PATH = os.fsencode(TARGET) + b"/.exlab-wizard/creation.json"
PATIENCE = 30.0


def engine_at(port: int, folder: Path, nas: Path) -> Carrying:
    config = folder / f"rclone-{port}.conf"
    config.write_text(
        f"[far]\ntype = s3\nprovider = Rclone\nendpoint = http://127.0.0.1:{port}\n"
        "use_multipart_uploads = false\naccess_key_id = someone\nsecret_access_key = something\n"
    )
    return Carrying(folder, nas, rclone(config, "nas"))


def test_an_old_seal_that_comes_late_is_not_put_over_the_later_one(tmp_path: Path) -> None:
    nas = tmp_path / "served" / "nas"
    nas.mkdir(parents=True)
    held, released = threading.Event(), threading.Event()

    def hold(line: str) -> None:
        if line.startswith("PUT") and "incoming" not in line and "creation.json" in line:
            held.set()
            assert released.wait(PATIENCE)

    with (
        rclone_serving("s3", nas.parent, tmp_path, "--auth-key", "someone,something") as port,
        gate_before(port, "(?!)", 500, b"") as gate,
        ThreadPoolExecutor() as threads,
    ):
        first, second = engine_at(gate.port, tmp_path, nas), engine_at(port, tmp_path, nas)
        gate.before = hold
        try:
            old = SealedFile(PATH, b"as it was", 1_600_000_000 * 10**9)
            sealing = threads.submit(first.transport.seal, [old], job_id="job", control=first.control)
            assert held.wait(PATIENCE)
            new = SealedFile(PATH, b"as it is now", 1_700_000_000 * 10**9)
            second.transport.seal([new], job_id="job", control=second.control)
        finally:
            released.set()
        with pytest.raises(TransferError):
            sealing.result(PATIENCE)
    assert (nas / os.fsdecode(PATH)).read_bytes() == b"as it is now"
