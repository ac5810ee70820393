"""rsync through ssh to a real sshd.

rsync ends with ssh's status when ssh is gone by the time that rsync notices, else with 12: `_ENDS_FIRST` and
`_ENDS_LAST` decide which of the two it is.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from services.sync_engine.transfer.ssh_session import SshAccess
from services.sync_engine.transfer.tool_process import find_tool
from tests.integration.transfer.far_servers import Sshd, free_port, make_key, running_sshd
from tests.unit.transfer.capture.rsync_scenes import RSYNC
from tests.unit.transfer.capture.scene import Said, Scene, files, mounted_tmpfs, processes_of, run, until

_ENDS_FIRST = "sleep 0.5 & exit $code"
_ENDS_LAST = "exec <&- >&-; sleep 0.5; exit $code"
_SLOWLY = "--bwlimit=100"


def rsync_unknown_host_key(folder: Path) -> Said:
    return _send(folder, lambda access: replace(access, known_hosts=Path("/dev/null")))


def rsync_changed_host_key(folder: Path) -> Said:
    return _send(folder, lambda access: _another_known_host(folder, access))


def rsync_changed_host_key_of_ssh(folder: Path) -> Said:
    return _send(folder, lambda access: _another_known_host(folder, access), ending=_ENDS_FIRST)


def rsync_wrong_key(folder: Path) -> Said:
    return _send(folder, lambda access: _another_key(folder, access))


def rsync_wrong_key_of_ssh(folder: Path) -> Said:
    return _send(folder, lambda access: _another_key(folder, access), ending=_ENDS_FIRST)


def rsync_open_key(folder: Path) -> Said:
    def opened(access: SshAccess) -> SshAccess:
        access.key_path.chmod(0o644)
        return access

    return _send(folder, opened, ending=_ENDS_FIRST)


def rsync_refused(folder: Path) -> Said:
    return _send(folder, lambda access: replace(access, port=free_port()))


def rsync_refused_of_ssh(folder: Path) -> Said:
    return _send(folder, lambda access: replace(access, port=free_port()), ending=_ENDS_FIRST)


def rsync_no_such_host(folder: Path) -> Said:
    return _send(folder, lambda access: replace(access, target="user@no-such-host.invalid"))


def rsync_cut(folder: Path) -> Said:
    return _cut(folder, _ENDS_LAST)


def rsync_cut_of_ssh(folder: Path) -> Said:
    return _cut(folder, _ENDS_FIRST)


def rsync_login_banner(folder: Path) -> Said:
    def greet(sshd: Sshd) -> None:
        key = (sshd.folder / "authorized").read_text()
        forced = 'command="echo Welcome to the laboratory; eval $SSH_ORIGINAL_COMMAND"'
        (sshd.folder / "authorized").write_text(f"{forced} {key}")

    return _send(folder, prepare=greet)


def rsync_far_tool_missing(folder: Path) -> Said:
    return _send(folder, options=("--rsync-path=no-such-rsync",))


def rsync_far_tool_missing_of_ssh(folder: Path) -> Said:
    return _send(folder, options=("--rsync-path=no-such-rsync",), ending=_ENDS_FIRST)


def rsync_far_tool_not_runnable(folder: Path) -> Said:
    (folder / "rsync").write_text("no program")
    return _send(folder, options=(f"--rsync-path={folder}/rsync",), ending=_ENDS_FIRST)


def rsync_far_tool_took_too_long(folder: Path) -> Said:
    return _send(folder, options=("--rsync-path=timeout 1 rsync", _SLOWLY), ending=_ENDS_FIRST)


def rsync_far_shell_broken(folder: Path) -> Said:
    return _send(folder, options=("--rsync-path=timeout no rsync",), ending=_ENDS_FIRST)


def rsync_far_tool_killed(folder: Path) -> Said:
    def kill() -> None:
        os.kill(processes_of("rsync", f"{folder}/nas", count=2)[0], signal.SIGKILL)

    wrapped = """--rsync-path=sh -c 'rsync "$@"; exit $?' sh"""
    return _send(folder, options=(wrapped, _SLOWLY), meddle=kill, ending=_ENDS_FIRST)


def rsync_far_tool_hangs(folder: Path) -> Said:
    def hang() -> None:
        far = processes_of("rsync", f"{folder}/nas", count=2)
        for pid in far:
            os.kill(pid, signal.SIGSTOP)
        # ssh waits for them longer than rsync does.
        processes_of(RSYNC, f"{folder}/nas", count=0)
        for pid in far:
            os.kill(pid, signal.SIGKILL)

    return _send(folder, options=("--timeout=2", "--bwlimit=300"), meddle=hang)


def rsync_full(folder: Path) -> Said:
    with mounted_tmpfs(folder / "nas", "size=400k"):
        return _send(folder)


def _send(
    folder: Path,
    change: Callable[[SshAccess], SshAccess] = lambda access: access,
    *,
    prepare: Callable[[Sshd], object] = lambda sshd: None,
    options: tuple[str, ...] = (),
    meddle: Callable[[], object] | None = None,
    ending: str = _ENDS_LAST,
) -> Said:
    """`meddle` is called when the first bytes have arrived."""
    nas = folder / "nas"
    nas.mkdir(exist_ok=True)

    def meanwhile() -> None:
        until(lambda: any(place.stat().st_size for place in nas.glob(".f1.*")))
        assert meddle is not None
        meddle()

    with running_sshd(folder / "sshd") as sshd:
        prepare(sshd)
        access = change(sshd.access)
        shell = folder / "shell"
        shell.write_text(f'#!/bin/sh\n{" ".join(_ssh(access))} "$@"; code=$?; {ending}\n')
        shell.chmod(0o755)
        command = (RSYNC, "-rt", "-e", shell, *options, f"{files(folder / 'run')}/", f"far:{nas}/")
        return run(*command, meanwhile=meanwhile if meddle is not None else None)


def _ssh(access: SshAccess) -> tuple[str, ...]:
    user, _, host = access.target.partition("@")
    settings = {
        "HostName": host,
        "User": user,
        "Port": access.port,
        "IdentityFile": access.key_path,
        "UserKnownHostsFile": access.known_hosts,
        "GlobalKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "LogLevel": "ERROR",
    }
    return (find_tool("ssh"), "-F", "/dev/null", *(f"-o {name}={value}" for name, value in settings.items()))


def _another_key(folder: Path, access: SshAccess) -> SshAccess:
    make_key(folder / "other")
    return replace(access, key_path=folder / "other")


def _another_known_host(folder: Path, access: SshAccess) -> SshAccess:
    (folder / "known").write_text(f"[127.0.0.1]:{access.port} {make_key(folder / 'other')}")
    return replace(access, known_hosts=folder / "known")


def _cut(folder: Path, ending: str) -> Said:
    running: list[Sshd] = []

    def cut() -> None:
        sessions = subprocess.run(["pgrep", "-P", str(running[0].process.pid)], capture_output=True, check=True)
        for session in sessions.stdout.split():
            os.kill(int(session), signal.SIGKILL)

    return _send(folder, prepare=running.append, options=(_SLOWLY,), meddle=cut, ending=ending)


SCENES: tuple[Scene, ...] = (
    *(rsync_unknown_host_key, rsync_changed_host_key, rsync_changed_host_key_of_ssh, rsync_wrong_key),
    *(rsync_wrong_key_of_ssh, rsync_open_key, rsync_refused, rsync_refused_of_ssh, rsync_no_such_host),
    *(rsync_cut, rsync_cut_of_ssh, rsync_login_banner, rsync_far_tool_missing, rsync_far_tool_missing_of_ssh),
    *(rsync_far_tool_not_runnable, rsync_far_tool_took_too_long, rsync_far_shell_broken, rsync_far_tool_killed),
    *(rsync_far_tool_hangs, rsync_full),
)
