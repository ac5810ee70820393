"""A bag for which there is no room is told as that, and the run's data as nothing worse."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from libs.run_tree.bag import BagWriter
from tests.faults.sync_engine.test_destinations import mounted_tmpfs


def test_a_full_disk_is_not_data_that_is_lost(tmp_path: Path) -> None:
    run, stick = tmp_path / "run", tmp_path / "stick"
    run.mkdir()
    stick.mkdir()
    content = os.urandom(2 << 20)
    (run / "a.tif").write_bytes(content)
    with mounted_tmpfs(stick, "size=1m"):
        with pytest.raises(OSError) as full, BagWriter(stick / "bag") as bag:
            bag.copy(b"a.tif", hashlib.sha256(content).hexdigest(), [run])
        assert full.value.errno == errno.ENOSPC
        assert list(stick.iterdir()) == []
