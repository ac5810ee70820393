"""Destinations behind tools that fail for real: what the job is told, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.sync_engine.transfer import tool_process
from services.sync_engine.transfer.bandwidth import UNLIMITED
from services.sync_engine.transfer.rclone_place import RclonePlace
from services.sync_engine.transfer.rclone_remote import RcloneRemote
from services.sync_engine.transfer.remote_transport import RemoteTransport
from services.sync_engine.transfer.rsync_far import RsyncPlace
from services.sync_engine.transfer.ssh_session import SshAccess
from services.sync_engine.transfer.tools import RCLONE, RSYNC, SSH, Toolbox
from services.sync_engine.transfer.transfer_control import StopReason, TransferStoppedError
from services.sync_engine.transfer.transport import FailureKind, TransferError
from tests.faults.transfer.counted_line import counted_line
from tests.integration.transfer.carrying import TARGET, Carrying, tree, write
from tests.integration.transfer.conforming import children_of_this_process
from tests.integration.transfer.far_servers import Sshd, free_port, make_key, running_sshd

RSYNC_TOOLS, RCLONE_TOOLS = Toolbox((RSYNC, SSH)), Toolbox((RCLONE,))
SECRET = "BpErYl1yy1EY0hINLgYfDRRcXg"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("far") / "sshd") as running:
        yield running


def rsync(access: SshAccess, destination: Path) -> RemoteTransport:
    place = RsyncPlace(access, str(destination), tools=RSYNC_TOOLS, bandwidth=UNLIMITED)
    return RemoteTransport(place, max_stream_bytes=1 << 30)


def rclone(config: Path, path: str, max_stream_bytes: int = 1 << 30) -> RemoteTransport:
    place = RclonePlace(RcloneRemote("far", path, config), tools=RCLONE_TOOLS, bandwidth=UNLIMITED)
    return RemoteTransport(place, max_stream_bytes=max_stream_bytes)


def sftp(tmp_path: Path, access: SshAccess, **options: object) -> Path:
    user, _, host = access.target.partition("@")
    settings = {
        "host": host,
        "port": access.port,
        "user": user,
        "key_file": access.key_path,
        "known_hosts_file": access.known_hosts,
        "shell_type": "unix",
        "hashes": "sha256",
        "sha256sum_command": "sha256sum",
        **options,
    }
    config = tmp_path / "rclone.conf"
    config.write_text("[far]\ntype = sftp\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    return config


def failure(act: Callable[[], object]) -> TransferError:
    with pytest.raises(TransferError) as error:
        act()
    return error.value


def a_key(tmp_path: Path) -> Path:
    make_key(tmp_path / "other")
    return tmp_path / "other"


@pytest.fixture(params=["rsync_ssh", "rclone"])
def open_with(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[SshAccess, Path], RemoteTransport]:
    def opened(access: SshAccess, destination: Path) -> RemoteTransport:
        if request.param == "rsync_ssh":
            return rsync(access, destination)
        return rclone(sftp(tmp_path, access), str(destination))

    return opened


Opening = Callable[[SshAccess, Path], RemoteTransport]


@pytest.fixture
def carrying(tmp_path: Path, sshd: Sshd, open_with: Opening) -> Iterator[Carrying]:
    source, destination = tmp_path / "run", tmp_path / "nas"
    source.mkdir()
    destination.mkdir()
    before = children_of_this_process()
    yield Carrying(source, destination, open_with(sshd.access, destination))
    assert children_of_this_process() <= before


def test_a_key_that_is_not_let_in(tmp_path: Path, sshd: Sshd, open_with: Opening) -> None:
    refusal = failure(open_with(replace(sshd.access, key_path=a_key(tmp_path)), tmp_path).check)
    assert refusal.kind is FailureKind.AUTHENTICATION


def test_another_host_key_than_before(tmp_path: Path, sshd: Sshd, open_with: Opening) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{sshd.access.port} {a_key(tmp_path).with_suffix('.pub').read_text()}")
    refusal = failure(open_with(replace(sshd.access, known_hosts=known), tmp_path).check)
    assert refusal.kind is FailureKind.CONFIGURATION


def far_shell(tmp_path: Path, does: str) -> Path:
    """What sshd calls instead of a login shell that has been told to greet, to refuse, or to run something else."""
    shell = tmp_path / "shell"
    shell.write_text(f"#!/bin/sh\n{does}\n")
    shell.chmod(0o755)
    return shell


def test_a_login_shell_that_begins_to_print_makes_nothing_rot(tmp_path: Path) -> None:
    source, destination, greeting = tmp_path / "run", tmp_path / "nas", tmp_path / "greeting"
    source.mkdir()
    destination.mkdir()
    shell = far_shell(tmp_path, f'cat {greeting} 2>/dev/null\nexec sh -c "$SSH_ORIGINAL_COMMAND"')
    with running_sshd(tmp_path / "sshd", f"ForceCommand {shell}") as talking:
        carrying = Carrying(source, destination, rsync(talking.access, destination))
        for name in (b"a", b"b"):
            write(source, name, name)
        copied = carrying.copy()
        assert carrying.verify(copied).proven
        greeting.write_text("Welcome to node 10\n")
        acts: list[Callable[[], object]] = [carrying.transport.check, carrying.copy, lambda: carrying.verify(copied)]
        for act in acts:
            refusal = failure(act)
            assert refusal.kind is FailureKind.CONFIGURATION
            assert "'Welcome to node 10'" in refusal.message
            assert "must print nothing by itself" in refusal.message
        greeting.unlink()
        assert carrying.verify(copied).proven


@pytest.mark.parametrize(("does", "code"), [("echo This account is not available.; exit 1", "1"), ("echo So what", "")])
def test_a_far_end_that_runs_nothing_is_told_in_its_words(tmp_path: Path, does: str, code: str) -> None:
    with running_sshd(tmp_path / "sshd", f"ForceCommand {far_shell(tmp_path, does)}") as refusing:
        refusal = failure(rsync(refusing.access, tmp_path).check)
    assert does.split(";")[0].removeprefix("echo ") in refusal.message
    assert (f"exit status {code}" if code else "must print nothing by itself") in refusal.message


def test_nobody_listens(tmp_path: Path, sshd: Sshd, open_with: Opening) -> None:
    refusal = failure(open_with(replace(sshd.access, port=free_port()), tmp_path).check)
    assert refusal.kind is FailureKind.NETWORK
    assert "refused" in refusal.message


def test_a_folder_that_is_not_there_is_never_made(tmp_path: Path, sshd: Sshd, open_with: Opening) -> None:
    refusal = failure(open_with(sshd.access, tmp_path / "unmounted").check)
    assert refusal.kind is FailureKind.NETWORK
    assert not (tmp_path / "unmounted").exists()


def test_a_full_disk_at_the_far_end(carrying: Carrying) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(carrying.destination)], check=True)
    try:
        write(carrying.source, b"small", b"x")
        write(carrying.source, b"large", os.urandom(6 << 20))
        refusal = failure(carrying.copy)
        assert refusal.kind is FailureKind.DESTINATION_FULL
        assert not (carrying.run / "large").exists()
    finally:
        subprocess.run(["umount", "-l", str(carrying.destination)], check=True)


def test_a_read_only_far_end(carrying: Carrying) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(carrying.destination)], check=True)
    try:
        write(carrying.source, b"a", b"x")
        refusal = failure(carrying.copy)
        # SFTP has one word for whatever isn't known to it: that is tried again.
        assert refusal.kind is FailureKind.CONFIGURATION or "SSH_FX_FAILURE" in refusal.message
    finally:
        subprocess.run(["umount", "-l", str(carrying.destination)], check=True)


def test_a_server_that_stops_answering_is_ended_by_the_stall_watch(tmp_path: Path, open_with: Opening) -> None:
    source, destination = tmp_path / "run", tmp_path / "nas"
    source.mkdir()
    destination.mkdir()
    with running_sshd(tmp_path / "sshd") as own:
        carrying = Carrying(source, destination, open_with(own.access, destination))
        write(source, b"a", b"x")

        def hang(batch: object) -> None:
            os.killpg(own.process.pid, signal.SIGSTOP)
            subprocess.run(["pkill", "-STOP", "-P", str(own.process.pid)], check=False)
            threading.Timer(1.0, carrying.control.stop, [StopReason.STALLED]).start()

        before = children_of_this_process()
        with pytest.raises(TransferStoppedError):
            carrying.copy(hang)
        assert children_of_this_process() <= before
        subprocess.run(["pkill", "-CONT", "-P", str(own.process.pid)], check=False)
    assert not tree(carrying.run)


def test_a_connection_that_is_cut_and_another_attempt(carrying: Carrying, sshd: Sshd) -> None:
    for number in range(50):
        write(carrying.source, b"%d" % number, os.urandom(1000))

    def cut(batch: object) -> None:
        sessions = subprocess.run(["pgrep", "-P", str(sshd.process.pid)], capture_output=True, check=True)
        for session in sessions.stdout.split():
            os.kill(int(session), signal.SIGKILL)

    try:
        carrying.copy(cut)
    except TransferError as error:
        assert error.kind is FailureKind.NETWORK
    carrying.transport.sweep("job", keep_attempt=None, control=carrying.control)
    copied = carrying.copy()
    assert tree(carrying.run) == tree(carrying.source)
    assert carrying.verify(copied).proven


def test_of_a_large_file_only_what_is_missing_is_sent_again(tmp_path: Path, sshd: Sshd) -> None:
    size = 24 << 20
    (tmp_path / "nas").mkdir()
    write(tmp_path / "run", b"large.tif", os.urandom(size))
    assert sshd.access.port is not None
    with counted_line(sshd.access.port) as line:
        known = tmp_path / "known_hosts"
        known.write_text(sshd.access.known_hosts.read_text().replace(str(sshd.access.port), str(line.port)))
        access = replace(sshd.access, port=line.port, known_hosts=known)
        job = Carrying(tmp_path / "run", tmp_path / "nas", rsync(access, tmp_path / "nas"))
        for part in (1, 2):
            line.sent, line.breaks_after = 0, size // 3
            assert failure(job.copy).kind is FailureKind.NETWORK, part
            job.transport.sweep("job", keep_attempt=part + 1, control=job.control)
        line.sent = 0
        copied = job.copy()
        # Two thirds were there, less what was on its way; and each side tells the other what it has.
        assert line.sent < size * 2 / 3
        job.transport.sweep("job", keep_attempt=None, control=job.control)
        assert job.verify(copied).proven
    assert not list((tmp_path / "nas" / ".labferry-incoming").iterdir())


@pytest.mark.parametrize("name", ["rsync", "rclone", "ssh"])
def test_a_tool_that_is_missing_is_named(
    tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(tool_process.shutil, "which", lambda tool, path: None if tool == name else f"/usr/bin/{tool}")
    monkeypatch.setattr(sys.modules[__name__], "RCLONE_TOOLS", Toolbox((RCLONE,)))
    monkeypatch.setattr(sys.modules[__name__], "RSYNC_TOOLS", Toolbox((RSYNC, SSH)))
    transport = rclone(sftp(tmp_path, sshd.access), "") if name == "rclone" else rsync(sshd.access, tmp_path)
    refusal = failure(transport.check)
    assert refusal.kind is FailureKind.CONFIGURATION
    assert f"{name} is not installed; it was looked for in" in refusal.message


def test_a_remote_that_is_not_configured(tmp_path: Path) -> None:
    config = tmp_path / "rclone.conf"
    config.write_text("[other]\ntype = local\n")
    refusal = failure(rclone(config, "").check)
    assert refusal.kind is FailureKind.CONFIGURATION
    assert "'far'" in refusal.message


def test_no_credential_of_rclone_is_told(tmp_path: Path, sshd: Sshd) -> None:
    config = sftp(tmp_path, sshd.access, key_file="", **{"pass": SECRET})
    refusal = failure(rclone(config, "").check)
    assert refusal.kind is FailureKind.AUTHENTICATION
    assert SECRET not in refusal.message


def test_a_verification_of_files_that_are_too_large_to_download_is_no_pass(tmp_path: Path, sshd: Sshd) -> None:
    source, destination = tmp_path / "run", tmp_path / "nas"
    source.mkdir()
    destination.mkdir()
    config = sftp(tmp_path, sshd.access, hashes="none", sha256sum_command="none", disable_hashcheck="true")
    carrying = Carrying(source, destination, rclone(config, str(destination), max_stream_bytes=999))
    write(source, b"small", b"x" * 10)
    write(source, b"large", b"x" * 1000)
    copied = carrying.copy()
    for less in (0, 998):
        outcome = carrying.transport.verify(
            TARGET, copied, control=carrying.control, progress=carrying.progress, max_stream_bytes=less
        )  # type: ignore[arg-type]
        assert (outcome.oversize, outcome.proven, outcome.method) == ((b"large",), False, "download")
    outcome = carrying.transport.verify(
        TARGET, copied, control=carrying.control, progress=carrying.progress, max_stream_bytes=1000
    )  # type: ignore[arg-type]
    assert (outcome.oversize, outcome.proven) == ((), True)


@pytest.fixture
def unchangeable(tmp_path: Path) -> Iterator[Path]:
    """A folder in which the system lets nobody make a name."""
    folder = tmp_path / "nas"
    folder.mkdir()
    subprocess.run(["chattr", "+i", str(folder)], check=True)
    yield folder
    subprocess.run(["chattr", "-i", str(folder)], check=True)


def test_a_destination_that_may_not_be_written_to(
    tmp_path: Path, sshd: Sshd, open_with: Opening, unchangeable: Path
) -> None:
    write(tmp_path / "run", b"a", b"x")
    job = Carrying(tmp_path / "run", unchangeable, open_with(sshd.access, unchangeable))
    for act in (job.transport.check, job.copy):
        refusal = failure(act)
        assert refusal.kind is FailureKind.CONFIGURATION, refusal
        assert "permitted" in refusal.message.lower() or "denied" in refusal.message.lower()
