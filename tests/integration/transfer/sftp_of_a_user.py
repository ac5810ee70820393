"""An SFTP server that isn't root's, on a small disk of which a part is kept for root."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.transfer.far_servers import Sshd, running_sshd
from tests.integration.transfer.loop_disk import loop_disk

_NOBODY = 65534
_SIZE = 32 << 20
_BLOCK = 1024
_AS_NOBODY = f"/usr/bin/setpriv --reuid {_NOBODY} --regid {_NOBODY} --clear-groups"


@dataclass(frozen=True)
class SmallSftp:
    """`folder` is the user's, on the disk."""

    sshd: Sshd
    folder: Path

    def configuration(self) -> str:
        """Of rclone, with the server as `far`."""
        access = self.sshd.access
        user, _, host = access.target.partition("@")
        return (
            f"[far]\ntype = sftp\nhost = {host}\nport = {access.port}\nuser = {user}\nkey_file = {access.key_path}\n"
            f"known_hosts_file = {access.known_hosts}\nshell_type = unix\n"
        )

    @property
    def room(self) -> int:
        """Bytes that the user may still write."""
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def fill(self, blocks_left: int) -> None:
        """Until so many blocks are left to the user."""
        filler = self.folder / "filler"
        subprocess.run(
            [*_AS_NOBODY.split(), "dd", "if=/dev/zero", f"of={filler}", f"bs={_BLOCK}", "conv=fsync"],
            stderr=subprocess.DEVNULL,
            check=False,
        )
        assert self.room < _BLOCK
        os.truncate(filler, filler.stat().st_size - blocks_left * _BLOCK)
        os.sync()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        disk = str(self.folder.parent)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        try:
            yield
        finally:
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)

    def make_room(self) -> None:
        (self.folder / "filler").unlink()


@contextmanager
def small_sftp() -> Iterator[SmallSftp]:
    """Only root may do this."""
    command = f"{_AS_NOBODY} /usr/lib/openssh/sftp-server"
    # pytest's own folders are root's alone.
    with tempfile.TemporaryDirectory(prefix="sftp-") as made:
        base = Path(made)
        base.chmod(0o755)
        with (
            loop_disk("ext4", base, nbytes=_SIZE, made_with=("-m", "20", "-b", str(_BLOCK))) as disk,
            running_sshd(base / "sshd", sftp=command) as sshd,
        ):
            folder = disk.folder / "lab"
            folder.mkdir()
            os.chown(folder, _NOBODY, _NOBODY)
            yield SmallSftp(sshd, folder)
