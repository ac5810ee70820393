"""[rclone], [rsync] 5,000 files of 20 KiB to an sshd on this machine, copied, landed and verified; [rclone-large],
[rsync-large] 4 files of 512 MiB likewise.

The peers are the tools as people run them for the same: copy, then hash both sides at once and compare. They land files
under their final names, survive nothing, and never look whether a file changes under them.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.carry import CarrySpec
from bench.process_cost import carried_apart, run_tools
from bench.table import Better, Row, Sample
from services.sync_engine.transfer.tool_process import find_tool
from tests.integration.transfer.far_servers import Sshd, running_sshd

_BLOCK = 4 << 20
# Ours syncs, looks at the source again and lands without replacing, which the peers don't; nobody requires a figure.
_TARGET_RATIO = 2.0


class TransferTools:
    """The run to carry and an sshd to carry it to, to an empty folder each time."""

    def __init__(self, files: int, file_bytes: int, folders: int) -> None:
        self._files, self._file_bytes, self._folders = files, file_bytes, folders
        self._base = Path()
        self._sshd: Sshd | None = None

    @asynccontextmanager
    async def site(self) -> AsyncIterator[None]:
        """Makes the source beside the benchmark, on the disk that people's checkouts lie on, and removes everything."""
        with tempfile.TemporaryDirectory(prefix="transfer-tools-", dir=Path(__file__).parent) as base:
            self._base = Path(base)
            self._make_run()
            with running_sshd(self._base / "sshd") as self._sshd:
                yield

    def _make_run(self) -> None:
        for number in range(self._files):
            folder = self._run / f"position{number % self._folders:02}"
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / f"image{number:05}.tif", "wb") as image:
                for start in range(0, self._file_bytes, _BLOCK):
                    image.write(secrets.token_bytes(min(_BLOCK, self._file_bytes - start)))

    @property
    def _run(self) -> Path:
        return self._base / "run"

    def _empty_destination(self) -> Path:
        destination = self._base / "destination"
        shutil.rmtree(destination, ignore_errors=True)
        destination.mkdir()
        # What the round before left to write must not be paid for by this one.
        os.sync()
        return destination

    def _rclone_config(self) -> Path:
        assert self._sshd is not None
        access = self._sshd.access
        user, _, host = access.target.partition("@")
        config = self._base / "rclone.conf"
        config.write_text(
            f"[far]\ntype = sftp\nhost = {host}\nport = {access.port}\nuser = {user}\nkey_file = {access.key_path}\n"
            f"known_hosts_file = {access.known_hosts}\nshell_type = unix\nhashes = sha256\n"
            "sha256sum_command = sha256sum\n",
            encoding="utf-8",
        )
        return config

    def ours_by_rclone(self) -> Sample:
        destination = str(self._empty_destination())
        return carried_apart(CarrySpec(str(self._run), destination, ("far", destination, str(self._rclone_config()))))

    def raw_rclone(self) -> Sample:
        there = f"far:{self._empty_destination()}"
        rclone = [find_tool("rclone"), "--config", str(self._rclone_config())]
        hashing = [[*rclone, "hashsum", "sha256", place] for place in (str(self._run), there)]
        return run_tools([[[*rclone, "copy", str(self._run), there]], hashing])

    def ours_by_rsync(self) -> Sample:
        assert self._sshd is not None
        access = self._sshd.access
        ssh = (access.target, str(access.key_path), access.port or 22, str(access.known_hosts))
        return carried_apart(CarrySpec(str(self._run), str(self._empty_destination()), ssh=ssh))

    def raw_rsync(self) -> Sample:
        assert self._sshd is not None
        access, destination = self._sshd.access, self._empty_destination()
        ssh = [find_tool("ssh"), "-F", "/dev/null", "-i", str(access.key_path), "-p", str(access.port)]
        ssh += ["-o", f"UserKnownHostsFile={access.known_hosts}", "-o", "BatchMode=yes"]
        copy = [find_tool("rsync"), "-rt", "-e", shlex.join(ssh), f"{self._run}/", f"{access.target}:{destination}/"]
        here, there = (f"find {shlex.quote(str(p))} -type f -exec sha256sum {{}} +" for p in (self._run, destination))
        return run_tools([[copy], [["sh", "-c", here], [*ssh, access.target, there]]])


def _rows(suffix: str, tools: TransferTools) -> tuple[Row, Row]:
    rclone = Row(
        name="rclone" + suffix,
        unit="s",
        better=Better.LOWER,
        target=_TARGET_RATIO,
        peer="rclone copy, then rclone hashsum of both sides",
        run_ours=tools.ours_by_rclone,
        run_peer=tools.raw_rclone,
        around=tools.site,
    )
    rsync = Row(
        name="rsync" + suffix,
        unit="s",
        better=Better.LOWER,
        target=_TARGET_RATIO,
        peer="rsync, then sha256sum of both sides",
        run_ours=tools.ours_by_rsync,
        run_peer=tools.raw_rsync,
        around=tools.site,
    )
    return rclone, rsync


ROWS = (*_rows("", TransferTools(5_000, 20 << 10, 50)), *_rows("-large", TransferTools(4, 512 << 20, 1)))
