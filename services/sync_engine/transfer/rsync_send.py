"""One list of files through rsync, with its progress; begun anew, without what arrived, when the speed is to change."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from services.sync_engine.transfer import far_scripts as scripts
from services.sync_engine.transfer.bandwidth import SharedBandwidth, local_now
from services.sync_engine.transfer.private_folder import private_folder, write_private
from services.sync_engine.transfer.rsync_failures import RSYNC_FAILURES
from services.sync_engine.transfer.rsync_progress import RsyncProgress
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
# The far end reads a partial file for its checksums, and again while it goes on with it.
_READINGS = 2
# What has left rsync may lie in buffers so far: once so much more has, the far end has read what it had.
_IN_FLIGHT = 64 << 20


class _Held(NamedTuple):
    """What the far end has of a batch."""

    whole: frozenset[bytes]
    partial_bytes: int


class RsyncSend:
    """`command` is rsync with its remote shell; `root` the destination's folder. `partial`: the folder below it for
    what arrived of a file in work; without it that is lost."""

    def __init__(self, ssh: SshSession, command: Sequence[str], root: bytes, partial: bytes | None = None) -> None:
        self._ssh = ssh
        self._command = command
        self._root = root
        self._partial = partial

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
            progress = RsyncProgress(entries, moved, self._ssh.control.alive)
            held = self._held(folder, entries)
            progress.begin(held.whole)
            nbytes = held.partial_bytes
            while not self._once(source, folder, os.fsencode(names), nbytes, bandwidth, progress):
                held = self._held(folder, entries)
                # The rsync that was ended there may put its file away a moment later.
                nbytes = max(held.partial_bytes, progress.counted)
                progress.begin(held.whole)
            progress.finish()

    def _held(self, folder: bytes, entries: Sequence[SourceEntry]) -> _Held:
        if self._partial is None:
            return _Held(frozenset(), 0)
        said = self._ssh.must("looking for what arrived", scripts.HELD, [self._root, folder, self._partial])
        sizes = {entry.path: entry.size for entry in entries}
        # Each partial file lies under the last part of its path.
        names = {path.rpartition(b"/")[2] for path in sizes}
        whole: set[bytes] = set()
        partial_bytes = 0
        for kind_and_size, path in zip(*(iter(said.split(b"\0")[:-1]),) * 2, strict=True):
            nbytes = int(kind_and_size[1:])
            if kind_and_size.startswith(b"w"):
                whole |= {path} if sizes.get(path) == nbytes else set()
            elif path in names:
                partial_bytes += nbytes
        return _Held(frozenset(whole), partial_bytes)

    def _once(
        self,
        source: bytes,
        folder: bytes,
        names: bytes,
        held: int,
        bandwidth: SharedBandwidth,
        progress: RsyncProgress,
    ) -> bool:
        """False when it was cut short because another limit holds now."""
        limit = bandwidth.kib_per_second(local_now())
        options: list[str | bytes] = [*_OPTIONS]
        if limit is not None:
            options.append(f"--bwlimit={limit}")
        if self._partial is not None:
            options.append(b"--partial-dir=" + self._root + b"/" + self._partial)
        place = FAR.encode() + b":" + self._root + b"/" + folder + b"/"
        command = [*self._command, *options, b"--files-from=" + names, b"--", source + b"/", place]
        with (
            ExitStack() as silence,
            ToolProcess(command, environment=self._ssh.environment, stdout=subprocess.PIPE) as rsync,
        ):
            silence.enter_context(self._ssh.control.quiet(_READINGS * held))
            out, err = rsync.process.stdout, rsync.process.stderr
            assert out is not None and err is not None
            words: list[bytes] = []
            readers = [
                threading.Thread(target=progress.read, args=(out,), name="rsync progress"),
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
                        if progress.counted > held + _IN_FLIGHT:
                            silence.close()
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
