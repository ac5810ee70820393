"""rclone closes connections that are idle for a minute; hashing a large file on this machine can take longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.sync_engine.transfer import rclone_daemon
from services.sync_engine.transfer.bandwidth import UNLIMITED
from services.sync_engine.transfer.rclone_start import open_rclone
from services.sync_engine.transfer.transfer_control import TransferControl


def test_a_connection_that_rclone_closed_is_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "rclone.conf"
    config.write_text("")
    with open_rclone(config, TransferControl(), UNLIMITED) as daemon:
        assert daemon.call("rc/noop", said=1)["said"] == 1
        # What the server's end would do after a minute.
        daemon._own.connection.sock.shutdown(2)
        monkeypatch.setattr(rclone_daemon, "_IDLE_SECONDS", 0.0)
        assert daemon.call("rc/noop", said=2)["said"] == 2
