"""Real counterparts of the transports behind tools: an sshd, what `rclone serve` serves, and a Samba server."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.sync_engine.transfer.ssh_session import SshAccess
from services.sync_engine.transfer.tool_process import find_tool

PATIENCE = 20.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def until_answers(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None and time.monotonic() < end, log.read_text(errors="replace")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            # Not yet: the next look is what is waited for.
            continue


@contextmanager
def server(command: Sequence[str | Path], port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own, up, and gone at the end with everything it started."""
    log = folder / f"server-{port}.log"
    with open(log, "wb") as said:
        process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
    try:
        until_answers(port, process, log)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def make_key(path: Path) -> str:
    """An ssh key pair; the public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path.with_suffix(".pub").read_text()


@dataclass(frozen=True)
class Sshd:
    """A running sshd that lets one key in."""

    access: SshAccess
    process: subprocess.Popen[bytes]
    folder: Path


@contextmanager
def running_sshd(folder: Path, *options: str, sftp: str = "internal-sftp") -> Iterator[Sshd]:
    """`options`: further lines of its configuration. `sftp`: the command that speaks SFTP."""
    folder.mkdir()
    port = free_port()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    host_key = make_key(folder / "host")
    (folder / "authorized").write_text(make_key(folder / "key"))
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile none\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"MaxStartups 100\nUsePAM no\nSubsystem sftp {sftp}\n"
        # Else bash reads what is meant for people, at every command.
        f"SetEnv SHLVL=2\nPermitRootLogin prohibit-password\n" + "".join(f"{option}\n" for option in options)
    )
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    with server([sshd, "-D", "-e", "-f", folder / "sshd_config"], port, folder) as process:
        access = SshAccess(f"{getpass.getuser()}@127.0.0.1", folder / "key", port, folder / "known_hosts")
        yield Sshd(access, process, folder)


@contextmanager
def rclone_serving(kind: str, served: Path, folder: Path, *options: str) -> Iterator[int]:
    """`rclone serve KIND`; its port."""
    port = free_port()
    command = [find_tool("rclone"), "serve", kind, str(served), "--addr", f"127.0.0.1:{port}", *options]
    # Tests look behind its back, so it must remember nothing for long. At 0s it reads the whole tree at every look:
    # `rclone copy` of 24 folders with a file each took 1.7 s, and of 45 folders 17 s; at 1ms 0.9 and 1.6 s.
    with server([*command, "--config", "/dev/null", "--dir-cache-time", "1ms"], port, folder):
        yield port


@contextmanager
def running_samba(share: Path, folder: Path, *options: str) -> Iterator[int]:
    """smbd with one share, `lab`, for guests; its port. `options`: further lines of the share's configuration."""
    folder.mkdir()
    port = free_port()
    for name in ("private", "lock", "state", "cache", "pid", "ncalrpc"):
        (folder / name).mkdir()
    (folder / "smb.conf").write_text(
        f"[global]\nsmb ports = {port}\ninterfaces = 127.0.0.1\nbind interfaces only = yes\nserver role = standalone\n"
        f"private dir = {folder}/private\nlock directory = {folder}/lock\nstate directory = {folder}/state\n"
        f"cache directory = {folder}/cache\npid directory = {folder}/pid\nncalrpc dir = {folder}/ncalrpc\n"
        f"map to guest = bad user\nguest account = {getpass.getuser()}\nlog level = 0\nlog file = {folder}/log\n"
        f"load printers = no\ndisable spoolss = yes\n"
        f"[lab]\npath = {share}\nguest ok = yes\nread only = no\nforce user = {getpass.getuser()}\n"
        + "".join(f"{option}\n" for option in options)
    )
    smbd = shutil.which("smbd") or "/usr/sbin/smbd"
    with server([smbd, "--foreground", "--no-process-group", "-s", folder / "smb.conf"], port, folder):
        yield port
