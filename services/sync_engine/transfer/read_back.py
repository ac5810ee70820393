"""Verification: what a mounted destination holds, read past this machine's cache and compared (SPEC §4)."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

from libs.run_tree.beneath import link_beneath
from libs.run_tree.manifest import is_changing_file
from services.sync_engine.transfer.block_stream import Streamed
from services.sync_engine.transfer.destination_root import DestinationRoot
from services.sync_engine.transfer.present import names_present
from services.sync_engine.transfer.system_error import destination_error
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EntryKind,
    EvidenceGrade,
    FileEvidence,
    Progress,
    ProgressPhase,
    VerifyOutcome,
)
from services.sync_engine.transfer.uncached_read import NotAFileError, hash_opened, open_uncached, reading_note

METHOD = "uncached_read"
_CHUNK_FILES = 32


class _Verdict(Enum):
    MATCHED = "matched"
    DIFFERS = "differs"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class _Checked:
    file: CopiedFile
    verdict: _Verdict
    evidence: FileEvidence | None


class _Reader:
    def __init__(
        self,
        root: DestinationRoot,
        target: bytes,
        present: Mapping[bytes, EntryKind | None],
        control: TransferControl,
        progress: Progress,
    ) -> None:
        self._root = root
        self._target = target
        self._present = present
        self._control = control
        self._progress = progress

    def check(self, files: Sequence[CopiedFile]) -> list[_Checked]:
        """All are opened before the first is read, so that the disk is busy with the next ones meanwhile."""
        steps: list[_Checked | int] = []
        try:
            for file in files:
                steps.append(self._open(file))
            return [
                self._read(file, step) if isinstance(step, int) else step
                for file, step in zip(files, steps, strict=True)
            ]
        finally:
            for step in steps:
                if isinstance(step, int):
                    os.close(step)

    def _open(self, file: CopiedFile) -> _Checked | int:
        """A descriptor, or the result where that is clear without reading."""
        self._control.raise_before_file()
        # The listing followed no symlink: a file behind a folder that became a symlink is not at this destination.
        if file.path not in self._present:
            return _Checked(file, _Verdict.MISSING, None)
        if self._present[file.path] is not file.kind:
            return _Checked(file, _Verdict.DIFFERS, None)
        place = self._target + b"/" + file.path
        try:
            if file.kind is EntryKind.SYMLINK:
                link, _ = link_beneath(place, dir_fd=self._root.fd)
                return self._judged(file, Streamed(len(link), hashlib.sha256(link).hexdigest()))
            return open_uncached(self._root.fd, place, file.size)
        except FileNotFoundError:
            return _Checked(file, _Verdict.MISSING, None)
        except NotAFileError:
            return _Checked(file, _Verdict.DIFFERS, None)
        except OSError as error:
            raise destination_error(error, "reading back", file.path) from error

    def _read(self, file: CopiedFile, descriptor: int) -> _Checked:
        self._control.raise_if_stopped()
        streamed_bytes = 0

        def on_bytes(count: int) -> None:
            nonlocal streamed_bytes
            streamed_bytes += count
            self._control.raise_if_stopped()
            self._progress.advance(0, count, file.path)

        try:
            streamed = hash_opened(descriptor, file.size, on_bytes)
        except NotAFileError:
            return _Checked(file, _Verdict.DIFFERS, None)
        except OSError as error:
            raise destination_error(error, "reading back", file.path) from error
        self._progress.advance(1, streamed.size - streamed_bytes, file.path)
        return self._judged(file, streamed)

    def _judged(self, file: CopiedFile, read: Streamed) -> _Checked:
        if read.size > file.size:
            # A longer file isn't read to its end: the hash of its begin is evidence of nothing.
            return _Checked(file, _Verdict.DIFFERS, None)
        matched = read.sha256 == file.sha256 and read.size == file.size
        evidence = FileEvidence(file.path, read.size, read.sha256, EvidenceGrade.E4, file.kind)
        return _Checked(file, _Verdict.MATCHED if matched else _Verdict.DIFFERS, evidence)


def read_back(
    root: DestinationRoot,
    target: bytes,
    expected: Sequence[CopiedFile],
    *,
    control: TransferControl,
    progress: Progress,
    workers: int,
) -> VerifyOutcome:
    """Raises TransferError when a file could not be checked, or the destination vanished meanwhile."""
    progress.begin(ProgressPhase.VERIFYING, len(expected), sum(file.size for file in expected))
    present = names_present(root, target)
    reader = _Reader(root, target, present, control, progress)
    chunks = [expected[start : start + _CHUNK_FILES] for start in range(0, len(expected), _CHUNK_FILES)]
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="verify") as threads:
        try:
            futures = [threads.submit(reader.check, chunk) for chunk in chunks]
            checked = [result for future in futures for result in future.result()]
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    # A destination that went away looks empty; that is no missing file but a check that couldn't check.
    root.refuse_if_gone()
    return _outcome(checked, _unexpected(present, expected), reading_note(root.filesystem_type))


def _unexpected(present: Mapping[bytes, EntryKind | None], expected: Sequence[CopiedFile]) -> list[bytes]:
    names = {path for path, kind in present.items() if kind is not EntryKind.DIRECTORY}
    names -= {file.path for file in expected}
    return sorted(path for path in names if not is_changing_file(path))


def _outcome(checked: Sequence[_Checked], unexpected: Sequence[bytes], note: str) -> VerifyOutcome:
    files = [one for one in checked if one.file.kind is EntryKind.FILE]
    return VerifyOutcome(
        expected=len(files),
        hashed=sum(one.evidence is not None for one in files),
        matched=sum(one.verdict is _Verdict.MATCHED for one in files),
        missing=_paths(checked, _Verdict.MISSING),
        differing=_paths(checked, _Verdict.DIFFERS),
        unexpected=tuple(unexpected),
        evidence=tuple(one.evidence for one in checked if one.evidence is not None),
        method=METHOD,
        grade=EvidenceGrade.E4,
        host=socket.gethostname(),
        note=note,
    )


def _paths(checked: Sequence[_Checked], verdict: _Verdict) -> tuple[bytes, ...]:
    return tuple(sorted(one.file.path for one in checked if one.verdict is verdict))
