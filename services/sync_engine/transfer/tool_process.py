"""Running a foreign tool as a child that never outlives its work, nor the engine (SPEC §4: no child is left behind)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from libs.service_kit import parent
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import FailureKind, TransferError

LOOK_SECONDS = 0.2
"""How often a waiting thread looks whether it is to end."""
_END_SECONDS = 2.0


def find_tool(name: str) -> str:
    """The tool's place, on the PATH or beside this Python. TransferError CONFIGURATION says where it was looked for."""
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))
    found = shutil.which(name, path=places)
    if found is None:
        raise TransferError(FailureKind.CONFIGURATION, f"{name} is not installed; it was looked for in {places}")
    return found


def tool_environment() -> dict[str, str]:
    """What a tool inherits: no agent, no prompt, no options of its own, and messages that the tables know."""
    unwanted = {"SSH_AUTH_SOCK", "SSH_ASKPASS", "DISPLAY", "RSYNC_RSH", "RSYNC_PASSWORD", "RSYNC_OLD_ARGS"}
    kept = {
        name: value for name, value in os.environ.items() if name not in unwanted and not name.startswith("RCLONE_")
    }
    return {**kept, "LC_ALL": "C"}


class ToolProcess:
    """One child in a session of its own, so that all that it starts ends with it."""

    def __init__(
        self,
        command: Sequence[str | bytes],
        *,
        environment: Mapping[str, str],
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.PIPE,
    ) -> None:
        guard = [sys.executable, "-I", "-S", str(Path(parent.__file__)), str(os.getpid())]
        self.process = subprocess.Popen(
            [*guard, *command],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def code(self) -> int | None:
        """How the child ended; None when it is still there after a moment."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(LOOK_SECONDS)
        return None

    def end_children(self, *, at_once: bool = False) -> None:
        """Returns when the child is gone: asked first unless `at_once`, killed then. What it said can still be read."""
        if not at_once and self.process.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
        # What it started may have missed its end.
        self._signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """As `end_children`, and nothing more is read."""
        self.end_children()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


@dataclass(frozen=True, slots=True)
class Finished:
    """How a tool ended, and what it said."""

    code: int
    stdout: bytes
    stderr: bytes


def run_tool(
    command: Sequence[str | bytes],
    *,
    environment: Mapping[str, str],
    control: TransferControl,
    stdin: bytes = b"",
    stdout: IO[bytes] | None = None,
    most_seconds: float | None = None,
) -> Finished:
    """Waits for the tool's end; whatever it says meanwhile is a sign of life. With `stdout` what it writes goes there,
    and isn't in the answer. TransferStoppedError as soon as `control`
    says so; TransferError NETWORK after `most_seconds`. The tool is ended in both cases."""
    control.raise_if_stopped()
    waited = 0.0
    out = subprocess.PIPE if stdout is None else stdout
    with ToolProcess(command, environment=environment, stdin=subprocess.PIPE, stdout=out) as tool:
        given: bytes | None = stdin
        heard = 0
        while True:
            try:
                written, stderr = tool.process.communicate(given, timeout=LOOK_SECONDS)
                return Finished(tool.process.returncode, written or b"", stderr)
            except subprocess.TimeoutExpired as unfinished:
                given = None
                said = len(unfinished.stdout or b"") + len(unfinished.stderr or b"")
                said += os.fstat(stdout.fileno()).st_size if stdout is not None else 0
                if said > heard:
                    heard = said
                    control.alive()
                waited += LOOK_SECONDS
                control.raise_if_stopped()
                if most_seconds is not None and waited > most_seconds:
                    raise TransferError(
                        FailureKind.NETWORK, f"the destination did not answer within {most_seconds:.0f} s"
                    ) from None
