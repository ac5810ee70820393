"""What the transfer tests share: awkward runs, a recording progress, and one call that carries a run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from services.sync_engine.transfer.source_tree import scan_run
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import (
    CopiedFile,
    ProgressPhase,
    Transport,
    VerifyOutcome,
)

TARGET = PurePosixPath("Cortex Q3 Pilot/Runs/Run_2026-04-17T14-32")

HOSTILE_NAMES = (
    b"plain.txt",
    b"with space.txt",
    b" leading and trailing ",
    b"two\nlines",
    b"carriage\rreturn",
    b"quote'and\"quote",
    b"-",
    b"--delete",
    b"-rf *",
    b"back\\slash\\n",
    b"$(touch gone)`x`;&|",
    b"%s{}[]?*~!#",
    "ünï·光.tif".encode(),
    "e\u0301.tif".encode(),
    "\u00e9.tif".encode(),
    b"\xff\xfe not utf-8",
    b"tab\there",
    b"\x01\x7f",
    b".hidden",
    b"...",
    b"CON",
    b"a:b",
    b"trailing.",
    b"n" * 255,
    b"creation.json",
    b"x.1234.tmp",
    # What tools take for a comment, a filter, a remote or a pattern where a list or an argument begins so.
    *(b"#x", b";x", b"+ x", b"- x", b"! x", b"~x", b"@x", b":x", b"x:", b"*", b"?", b"[x]", b"{x}", b"\\x", b"\\#x"),
)


class Recorder:
    """Remembers what a transport said of its progress."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.phases: list[tuple[ProgressPhase, int, int]] = []
        self.files = 0
        self.bytes = 0
        self.untrue: list[str] = []
        """What fell, or was more than there is."""

    def begin(self, phase: ProgressPhase, files_total: int, bytes_total: int) -> None:
        with self._lock:
            self.phases.append((phase, files_total, bytes_total))
            self.files = self.bytes = 0

    def advance(self, files: int, nbytes: int, current: bytes) -> None:
        with self._lock:
            self.files += files
            self.bytes += nbytes
            phase, files_total, bytes_total = self.phases[-1]
            if files < 0 or nbytes < 0 or self.files > files_total or self.bytes > bytes_total:
                self.untrue.append(
                    f"{phase}: {files} more of {files_total} files, {nbytes} more of {bytes_total} bytes"
                )


@dataclass
class Carrying:
    """One job's way: its transport, what its log would hold, and what progress said."""

    source: Path
    destination: Path
    transport: Transport
    job_id: str = "job"
    target: PurePosixPath = TARGET
    attempt: int = 0
    batches: list[Sequence[CopiedFile]] = field(default_factory=list)
    progress: Recorder = field(default_factory=Recorder)
    control: TransferControl = field(default_factory=TransferControl)

    @property
    def run(self) -> Path:
        """The run's folder at the destination."""
        return self.destination / self.target

    @property
    def landed(self) -> Sequence[CopiedFile]:
        """What the job's log says was about to be moved into place."""
        return sorted((file for batch in self.batches for file in batch), key=lambda file: file.path)

    def copy(self, before_landing: Callable[[Sequence[CopiedFile]], None] | None = None) -> Sequence[CopiedFile]:
        """The next attempt."""
        self.attempt += 1

        def note(batch: Sequence[CopiedFile]) -> None:
            self.batches.append(batch)
            if before_landing is not None:
                before_landing(batch)

        return self.transport.copy(
            self.source,
            scan_run(self.source),
            target=self.target,
            job_id=self.job_id,
            attempt=self.attempt,
            landed=self.landed,
            before_landing=note,
            control=self.control,
            progress=self.progress,
        )

    def verify(self, expected: Sequence[CopiedFile]) -> VerifyOutcome:
        return self.transport.verify(self.target, expected, control=self.control, progress=self.progress)


def write(folder: Path, name: bytes, content: bytes, mtime_ns: int = 1_700_000_000_123_456_789) -> None:
    """A file with folders above it and a known modification time."""
    place = os.path.join(os.fsencode(folder), name)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, "wb") as stream:
        stream.write(content)
    os.utime(place, ns=(mtime_ns, mtime_ns))


def tree(folder: Path) -> dict[bytes, bytes | None]:
    """Every file with its content, every symlink with its target, every folder with None."""
    root = os.fsencode(folder)
    found: dict[bytes, bytes | None] = {}
    for parent, folders, files in os.walk(root):
        for name in folders + files:
            place = os.path.join(parent, name)
            path = os.path.relpath(place, root)
            if os.path.islink(place):
                found[path] = b"-> " + os.readlink(place)
            elif os.path.isdir(place):
                found[path] = None
            else:
                with open(place, "rb") as stream:
                    found[path] = stream.read()
    return found
