"""Tools that say all is well and leave something out: known before anything gets its name, never as a wrong hash."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.sync_engine.transfer import rclone_folders
from services.sync_engine.transfer.bandwidth import UNLIMITED
from services.sync_engine.transfer.rclone_place import RclonePlace
from services.sync_engine.transfer.rclone_remote import RcloneRemote
from services.sync_engine.transfer.remote_transport import RemoteTransport
from services.sync_engine.transfer.rsync_far import RsyncPlace
from services.sync_engine.transfer.tool_process import find_tool
from services.sync_engine.transfer.tools import RCLONE, RSYNC, SSH, Toolbox
from services.sync_engine.transfer.transport import FailureKind, TransferError
from tests.integration.transfer.carrying import Carrying, write
from tests.integration.transfer.far_servers import running_sshd

# The real rsync, but what it is to bring and is called so is not in the list that it gets.
_FORGETFUL = """#!/usr/bin/env python3
import os, sys
for argument in sys.argv:
    if argument.startswith("--files-from="):
        with open(argument.partition("=")[2], "r+b") as names:
            kept = [name for name in names.read().split(b"\\0") if b"forgotten" not in name]
            names.seek(0)
            names.truncate()
            names.write(b"\\0".join(kept))
os.execv({rsync!r}, ["rsync", *sys.argv[1:]])
"""


@pytest.fixture
def by_forgetful_rsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Carrying]:
    tools = tmp_path / "tools"
    (tmp_path / "run").mkdir()
    (tmp_path / "nas").mkdir()
    tools.mkdir()
    (tools / "rsync").write_text(_FORGETFUL.format(rsync=find_tool("rsync")))
    (tools / "rsync").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    with running_sshd(tmp_path / "sshd") as sshd:
        toolbox = Toolbox((RSYNC, SSH))
        place = RsyncPlace(sshd.access, str(tmp_path / "nas"), tools=toolbox, bandwidth=UNLIMITED)
        yield Carrying(tmp_path / "run", tmp_path / "nas", RemoteTransport(place, max_stream_bytes=1 << 30))


def test_files_that_rsync_leaves_out(by_forgetful_rsync: Carrying) -> None:
    job = by_forgetful_rsync
    for name in (b"a", b"forgotten", b"z"):
        write(job.source, name, b"x")
    with pytest.raises(TransferError) as failure:
        job.copy()
    assert (failure.value.kind, failure.value.paths) == (FailureKind.TOOL_FAILED, (b"forgotten",))
    assert job.batches == []
    assert not job.run.exists()


def test_folders_that_rclone_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As rclone does it unless it is told otherwise: two names that are one letter become one folder.
    monkeypatch.delitem(rclone_folders._FOLDERS_ONLY, "NoUnicodeNormalization")
    names = ("e\u0301", "\u00e9")
    for name in names:
        (tmp_path / "run" / name).mkdir(parents=True)
    (tmp_path / "nas").mkdir()
    config = tmp_path / "rclone.conf"
    config.write_text(f"[far]\ntype = alias\nremote = {tmp_path}/nas\n")
    place = RclonePlace(RcloneRemote("far", "", config), tools=Toolbox((RCLONE,)), bandwidth=UNLIMITED)
    job = Carrying(tmp_path / "run", tmp_path / "nas", RemoteTransport(place, max_stream_bytes=1 << 30))
    with pytest.raises(TransferError) as failure:
        job.copy()
    assert failure.value.kind is FailureKind.TOOL_FAILED
    assert len(failure.value.paths) == 1 and failure.value.paths[0].decode() in names
