"""One list of files through rsync, with its progress; begun anew, without what arrived, when the speed is to change."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import IO

from services.sync_engine.transfer.bandwidth import SharedBandwidth, local_now
from services.sync_engine.transfer.private_folder import private_folder, write_private
from services.sync_engine.transfer.rsync_failures import RSYNC_FAILURES
from services.sync_engine.transfer.ssh_session import FAR, SshSession
from services.sync_engine.transfer.tool_failures import tool_failure
from services.sync_engine.transfer.tool_process import LOOK_SECONDS, ToolProcess
from services.sync_engine.transfer.transport import SourceEntry

# As a folder needs it that others own: no owners, groups and modes, and no times of folders that lie above.
_OPTIONS = (
    *("--no-owner", "--no-group", "--no-perms", "--omit-dir-times", "--timeout=120"),
    # --secluded-args, under the name that all versions know.
    "-s",
    *("--outbuf=L", "--info=progress2,stats0", "--no-inc-recursive", "--no-human-readable", "--from0"),
)
_END_SECONDS = 2.0
_PROGRESS = re.compile(rb"\s*([\d,]+)\s+\d+%(?:.*xfr#(\d+))?")


class RsyncSend:
    """`command` is rsync with its remote shell; `root` the destination's folder."""

    def __init__(self, ssh: SshSession, command: Sequence[str], root: bytes) -> None:
        self._ssh = ssh
        self._command = command
        self._root = root

    def send(
        self,
        source: bytes,
        folder: bytes,
        entries: Sequence[SourceEntry],
        moved: Callable[[int, bytes], None],
        bandwidth: SharedBandwidth,
    ) -> None:
        """Into a folder below the root, which must be there. TransferError, TransferStoppedError."""
        with private_folder() as private:
            names = private / "files"
            # A name that begins like a comment is passed over, and nothing said.
            write_private(names, (b"./" + entry.path + b"\0" for entry in entries))
            meter = _Meter(entries, moved)
            limit = bandwidth.kib_per_second(local_now())
            while not self._once(source, folder, os.fsencode(names), limit, bandwidth, meter):
                limit = bandwidth.kib_per_second(local_now())
                meter.begin_anew()
            meter.finish()

    def _once(
        self, source: bytes, folder: bytes, names: bytes, limit: int | None, bandwidth: SharedBandwidth, meter: _Meter
    ) -> bool:
        """False when it was cut short because another limit holds now."""
        options = _OPTIONS if limit is None else (*_OPTIONS, f"--bwlimit={limit}")
        place = FAR.encode() + b":" + self._root + b"/" + folder + b"/"
        command = [*self._command, *options, b"--files-from=" + names, b"--", source + b"/", place]
        with ToolProcess(command, environment=self._ssh.environment, stdout=subprocess.PIPE) as rsync:
            out, err = rsync.process.stdout, rsync.process.stderr
            assert out is not None and err is not None
            words: list[bytes] = []
            readers = [
                threading.Thread(target=meter.read, args=(out,), name="rsync progress"),
                threading.Thread(target=lambda: words.append(err.read()), name="rsync words"),
            ]
            for reader in readers:
                reader.start()
            try:
                while True:
                    try:
                        code = rsync.process.wait(LOOK_SECONDS)
                        break
                    except subprocess.TimeoutExpired:
                        self._ssh.control.raise_if_stopped()
                        if bandwidth.kib_per_second(local_now()) != limit:
                            return False
            finally:
                rsync.end_children()
                for reader in readers:
                    reader.join(_END_SECONDS)
                    if reader.is_alive():
                        self._ssh.hang_up()
                        reader.join()
            if code != 0:
                raise tool_failure(RSYNC_FAILURES, "sending", code, b"".join(words).decode(errors="replace"))
        return True


class _Meter:
    """Turns rsync's running totals into steps. About which file is in work rsync tells no more than a number."""

    def __init__(self, entries: Sequence[SourceEntry], moved: Callable[[int, bytes], None]) -> None:
        self._entries = sorted(entries, key=lambda entry: entry.path)
        self._moved = moved
        self._told = 0
        self._before = 0
        self._total = sum(entry.size for entry in entries)

    def begin_anew(self) -> None:
        """The next run of rsync counts from 0, and only what was missing."""
        self._before = self._told

    def read(self, stream: IO[bytes]) -> None:
        """Until its end."""
        rest = b""
        while chunk := os.read(stream.fileno(), 65536):
            *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
            for line in lines:
                self._line(line)

    def _line(self, line: bytes) -> None:
        progress = _PROGRESS.match(line)
        if progress is None:
            return
        done = min(self._total, self._before + int(progress[1].replace(b",", b"")))
        number = int(progress[2] or 0)
        if done > self._told:
            current = self._entries[min(number, len(self._entries) - 1)].path
            self._moved(done - self._told, current)
            self._told = done

    def finish(self) -> None:
        """What needn't be sent again counts too."""
        if self._entries and self._total > self._told:
            self._moved(self._total - self._told, self._entries[-1].path)
