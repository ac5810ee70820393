"""Starting rclone with a private copy of its configuration, and with the password of an encrypted one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from services.sync_engine.transfer.bandwidth import SharedBandwidth
from services.sync_engine.transfer.private_folder import private_folder, write_private
from services.sync_engine.transfer.rclone_daemon import RcloneDaemon
from services.sync_engine.transfer.rclone_failures import RCLONE_FAILURES
from services.sync_engine.transfer.tool_failures import tool_failure
from services.sync_engine.transfer.tool_process import ToolProcess, find_tool, tool_environment
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import FailureKind, TransferError

_START_SECONDS = 20.0
_ENCRYPTED = b"\nRCLONE_ENCRYPT_V0:\n"
_OPTIONS = (
    *("--use-json-log", "--ask-password=false", "--log-level", "ERROR", "--retries", "1"),
    # What arrived is read back and hashed by the verification: a weaker look at it beforehand costs time only.
    *("--low-level-retries", "3", "--contimeout", "10s", "--timeout", "5m", "--ignore-checksum"),
    # What a symlink leads to is no copy, and may be the very file that was to be copied. It goes before what the
    # configuration says, of whatever remote reaches its storage so.
    "--sftp-skip-links",
)
# It would remember each call for a minute.
_SERVED = ("--rc-no-auth", "--rc-job-expire-duration", "1s", "--rc-job-expire-interval", "1s")

ConfigPassword = Callable[[TransferControl], AbstractContextManager[str]]
"""Lends the password of an encrypted configuration; its end, or the control, ends the loan."""


@contextmanager
def no_config_password(_: TransferControl) -> Iterator[str]:
    """For those who have none to lend."""
    raise TransferError(FailureKind.CONFIGURATION, "rclone's configuration is encrypted")
    yield


@contextmanager
def open_rclone(
    config: Path | None,
    control: TransferControl,
    bandwidth: SharedBandwidth,
    config_password: ConfigPassword = no_config_password,
) -> Iterator[RcloneDaemon]:
    """Starts rclone with a private copy of its configuration, which it rewrites, and with the password of an encrypted
    one. TransferError CONFIGURATION when it is missing, or its configuration can't be read; and those of the loan."""
    rclone = find_tool("rclone")
    environment, content = tool_environment(), _content(config)
    # The loan ends after rclone.
    with ExitStack() as lent, private_folder() as folder:
        opened_with: Sequence[str] = ()
        if _ENCRYPTED in content:
            password = lent.enter_context(config_password(control))
            opened_with = lent.enter_context(_password_command(password))
        copied, address, log = folder / "rclone.conf", folder / "rc", folder / "log"
        write_private(copied, [content])
        again = [rclone, "--config", str(copied), *_OPTIONS, *opened_with]
        command = [*again, "rcd", "--rc-addr", f"unix://{address}", *_SERVED]
        with open(log, "wb") as said, ToolProcess(command, environment=environment, stderr=said) as process:
            began = time.monotonic()
            while not _answers(address):
                code = process.process.poll()
                if code is not None:
                    raise tool_failure(RCLONE_FAILURES, "starting rclone", code, log.read_text(errors="replace"))
                if time.monotonic() - began > _START_SECONDS:
                    raise TransferError(FailureKind.CONFIGURATION, "rclone did not start")
                control.wait(0.01)
            yield RcloneDaemon(process, again, environment, address, control, bandwidth, log)


@contextmanager
def _password_command(password: str) -> Iterator[Sequence[str]]:
    """Options with which rclone reads the password from this process's memory: neither an argument nor an environment
    nor a disk ever holds it, and after the block nobody can read it."""
    descriptor = os.memfd_create("labferry-lent")
    try:
        os.write(descriptor, password.encode())
        yield "--password-command", f"cat /proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _answers(address: Path) -> bool:
    """The socket is there a moment before anybody listens."""
    with socket.socket(socket.AF_UNIX) as attempt:
        return attempt.connect_ex(str(address)) == 0


def _content(config: Path | None) -> bytes:
    path = config if config is not None else Path.home() / ".config" / "rclone" / "rclone.conf"
    try:
        return path.read_bytes()
    except OSError as error:
        raise TransferError(
            FailureKind.CONFIGURATION, f"rclone's configuration {path} can't be read: {error.strerror}"
        ) from error
