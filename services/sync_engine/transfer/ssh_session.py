"""One ssh connection, shared by everything that one piece of work does at the far end.

Names never stand in a command: a fixed script gets them as arguments from `xargs -0`, which reads them from its
standard input. ssh reads no configuration but ours, asks nobody anything, and checks host keys.

What a script writes begins with a mark: a login shell that prints something by itself, before it, would else be read as
the script's answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from services.sync_engine.transfer.private_folder import private_folder, write_private
from services.sync_engine.transfer.rsync_failures import RSYNC_FAILURES
from services.sync_engine.transfer.tool_failures import scrubbed, tool_failure
from services.sync_engine.transfer.tool_process import (
    Finished,
    ToolProcess,
    find_tool,
    run_tool,
    tool_environment,
)
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import FailureKind, TransferError

FAR = "far"
"""What the host is called in the configuration that ssh gets."""
_CONNECT_SECONDS = 10
_MOST_ARGUMENT_BYTES = 1_000_000
BEGINS = b"labferry-begins\0"
"""Stands before whatever a script writes into a file."""
_LOOK_SECONDS = 0.02
_MOST_WORDS = 4096


@dataclass(frozen=True, slots=True)
class SshAccess:
    """`target` is `user@host` or `host`. `known_hosts` None: ssh's own files."""

    target: str
    key_path: Path
    port: int | None = None
    known_hosts: Path | None = None


class SshSession:
    """An open connection; see `open_ssh`. `hang_up` ends it for everything that goes over it; it has their standard
    streams in its hands, too."""

    def __init__(
        self, config: Path, control: TransferControl, most_seconds: float | None, hang_up: Callable[[], None]
    ) -> None:
        self.config = config
        self.control = control
        self.most_seconds = most_seconds
        self.environment = tool_environment()
        self.hang_up = hang_up
        self._ssh = find_tool("ssh")

    @property
    def command(self) -> list[str]:
        """How ssh is called."""
        return [self._ssh, "-F", str(self.config)]

    def run(
        self,
        script: str,
        head: Sequence[bytes],
        items: Sequence[bytes] = (),
        per: int = 100,
        stdout: IO[bytes] | None = None,
    ) -> Finished:
        """Runs the script with `head` and up to `per` of the items as arguments, as often as there are items, at least
        once. The script holds no single quotes. Whatever it ended with is in the answer; what it wrote, in `stdout` if
        given, behind BEGINS. TransferError CONFIGURATION when something else was written first."""
        assert "'" not in script
        arguments: list[bytes] = []
        for start in range(0, max(len(items), 1), per):
            arguments += [*head, *items[start : start + per]]
        count = len(head) + per
        # What failed is told by the system's words, which are known in this language alone.
        far = f"exec env LC_ALL=C xargs -0 -x -s {_MOST_ARGUMENT_BYTES} -n {count} sh -c '{script}' sh"
        done = run_tool(
            [*self.command, FAR, f'printf "labferry-begins\\0"; {far}'],
            environment=self.environment,
            control=self.control,
            stdin=b"".join(argument + b"\0" for argument in arguments),
            stdout=stdout,
            most_seconds=self.most_seconds,
        )
        return _without_mark(done, stdout)

    def must(
        self,
        doing: str,
        script: str,
        head: Sequence[bytes],
        items: Sequence[bytes] = (),
        per: int = 100,
        stdout: IO[bytes] | None = None,
    ) -> bytes:
        """As `run`; what the script wrote. TransferError unless it ended well."""
        done = self.run(script, head, items, per, stdout)
        if done.code != 0:
            raise tool_failure(RSYNC_FAILURES, doing, done.code, done.stderr.decode(errors="replace"))
        return done.stdout


def _without_mark(done: Finished, stdout: IO[bytes] | None) -> Finished:
    written = done.stdout
    if stdout is not None:
        stdout.seek(0)
        written = stdout.read(_MOST_WORDS)
    before, mark, answer = written.partition(BEGINS)
    if mark and not before:
        return done if stdout is not None else Finished(done.code, answer, done.stderr)
    if not mark and done.code != 0:
        # The script was not begun: whoever refused may have said so here.
        return Finished(done.code, b"", done.stderr or written)
    words = scrubbed(before[:_MOST_WORDS].decode(errors="replace"))
    raise TransferError(
        FailureKind.CONFIGURATION,
        f"the far end prints {words!r} where a script's answer is expected: its login shell must print nothing by "
        "itself, and run what it is told",
    )


@contextmanager
def open_ssh(access: SshAccess, control: TransferControl, most_seconds: float | None) -> Iterator[SshSession]:
    """Connects. TransferError says what ssh said."""
    if not access.key_path.is_file():
        raise TransferError(FailureKind.CONFIGURATION, f"the key {access.key_path} (ssh_key_path) is not there")
    with private_folder() as folder:
        config = folder / "config"
        write_private(config, [_config(access, folder / "connection").encode()])
        command = [find_tool("ssh"), "-F", str(config), "-N", "-o", "ControlMaster=yes", FAR]
        log = folder / "log"
        with open(log, "wb") as said, ToolProcess(command, environment=tool_environment(), stderr=said) as master:
            began = time.monotonic()
            while not (folder / "connection").exists():
                if master.process.poll() is not None:
                    words = log.read_text(errors="replace")
                    raise tool_failure(
                        RSYNC_FAILURES, f"connecting to {access.target}", master.process.returncode, words
                    )
                # ConnectTimeout ends before the key exchange does: a host that accepts and says nothing more.
                if time.monotonic() - began > 2 * _CONNECT_SECONDS:
                    raise TransferError(FailureKind.NETWORK, f"{access.target} did not answer")
                control.wait(_LOOK_SECONDS)
            yield SshSession(config, control, most_seconds, master.end_children)


def _config(access: SshAccess, socket: Path) -> str:
    user, at, host = access.target.rpartition("@")
    lines = [
        f"Host {FAR}",
        f"HostName {host}",
        f'IdentityFile "{access.key_path}"',
        "IdentitiesOnly yes",
        "IdentityAgent none",
        "BatchMode yes",
        "StrictHostKeyChecking yes",
        "UpdateHostKeys no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        f"ConnectTimeout {_CONNECT_SECONDS}",
        "ServerAliveInterval 15",
        "ServerAliveCountMax 4",
        "ControlMaster no",
        f"ControlPath {socket}",
        "RequestTTY no",
        "ForwardAgent no",
        "ForwardX11 no",
        "LogLevel ERROR",
    ]
    if at:
        lines.append(f"User {user}")
    if access.port is not None:
        lines.append(f"Port {access.port}")
    if access.known_hosts is not None:
        lines.append(f'UserKnownHostsFile "{access.known_hosts}"')
        lines.append("GlobalKnownHostsFile /dev/null")
    return "\n".join((*lines, ""))
