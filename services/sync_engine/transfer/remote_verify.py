"""Verification of a destination behind a tool: what it holds is hashed there, or downloaded and hashed (SPEC §4)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from libs.run_tree.manifest import is_changing_file
from libs.run_tree.run_path import leads_into_run
from services.sync_engine.transfer.far_side import FarDigests, FarName, FarSide
from services.sync_engine.transfer.path_order import InStep
from services.sync_engine.transfer.remote_plan import HASHED_TOGETHER
from services.sync_engine.transfer.spilled_list import ListWriter, in_portions
from services.sync_engine.transfer.transfer_control import TransferControl
from services.sync_engine.transfer.transport import (
    CopiedFile,
    EntryKind,
    EvidenceGrade,
    FileEvidence,
    Progress,
    ProgressPhase,
    UnreadableFile,
    VerifyOutcome,
)


def verify_remote(
    far: FarSide,
    target: bytes,
    expected: Sequence[CopiedFile],
    whole: Sequence[CopiedFile],
    *,
    control: TransferControl,
    progress: Progress,
    max_stream_bytes: int,
) -> VerifyOutcome:
    """A file of another size differs without being read."""
    progress.begin(ProgressPhase.VERIFYING, len(expected), sum(file.size for file in expected))
    control.raise_before_file()
    present = far.names(target)
    reading = _Reading(far, target, max_stream_bytes, progress)
    there = InStep(present)
    for portion in in_portions(((file, there.at(file.path)) for file in expected), HASHED_TOGETHER):
        reading.read(portion)
    return reading.outcome(_unexpected(present, whole, of_project=b"/" not in target))


def _unexpected(present: Sequence[FarName], expected: Sequence[CopiedFile], *, of_project: bool) -> tuple[bytes, ...]:
    known = InStep(expected)
    return tuple(
        name.path
        for name in present
        if name.kind is not EntryKind.DIRECTORY
        and known.at(name.path) is None
        and not is_changing_file(name.path)
        and not (of_project and b"/" in name.path and leads_into_run(name.path))
    )


class _Reading:
    """What the files come to, portion after portion in the order of their paths."""

    def __init__(self, far: FarSide, target: bytes, max_stream_bytes: int, progress: Progress) -> None:
        self._far = far
        self._target = target
        self._max_stream_bytes = max_stream_bytes
        self._progress = progress
        self._expected = self._hashed = self._matched = 0
        self._missing: list[bytes] = []
        self._differing: list[bytes] = []
        self._oversize: list[bytes] = []
        self._unreadable: list[UnreadableFile] = []
        self._evidence = ListWriter(FileEvidence)

    def read(self, portion: Sequence[tuple[CopiedFile, FarName | None]]) -> None:
        sizes = {
            file.path: file.size for file, there in portion if there is not None and _is_worth_reading(file, there)
        }
        read = FarDigests()
        if sizes:
            read = self._far.digests(self._target, sizes, self._max_stream_bytes, self._advanced)
        self._oversize += read.oversize
        self._unreadable += read.unreadable
        unreadable = {file.path for file in read.unreadable}
        missing = [file.path for file, there in portion if there is None]
        links = self._far.unlisted(self._target, missing) if missing else frozenset()
        for file, there in portion:
            self._expected += file.kind is EntryKind.FILE
            if file.path in links:
                self._differing.append(file.path)
            elif there is None:
                self._missing.append(file.path)
            elif file.path in sizes:
                if file.path in read.found:
                    self._judge(file, file.size, read.found[file.path])
                elif file.path in unreadable:
                    self._differing.append(file.path)
                elif file.path not in read.oversize:
                    # One that vanished after it was listed.
                    self._missing.append(file.path)
            elif there.kind is not file.kind or file.kind is EntryKind.FILE:
                self._differing.append(file.path)
            else:
                self._advanced(file.path, there.size)
                self._judge(file, there.size, hashlib.sha256(there.link_target or b"").hexdigest())

    def _advanced(self, path: bytes, size: int) -> None:
        self._progress.advance(1, size, path)

    def _judge(self, file: CopiedFile, size: int, sha256: str) -> None:
        self._evidence.append(FileEvidence(file.path, size, sha256, EvidenceGrade.E4, file.kind))
        if sha256 != file.sha256:
            self._differing.append(file.path)
        if file.kind is EntryKind.FILE:
            self._hashed += 1
            self._matched += sha256 == file.sha256

    def outcome(self, unexpected: tuple[bytes, ...]) -> VerifyOutcome:
        return VerifyOutcome(
            expected=self._expected,
            hashed=self._hashed,
            matched=self._matched,
            missing=tuple(self._missing),
            differing=tuple(self._differing),
            unexpected=unexpected,
            evidence=self._evidence.finish(),
            method=self._far.method,
            grade=EvidenceGrade.E4,
            host=self._far.host,
            note=self._far.note,
            oversize=tuple(self._oversize),
            unreadable=tuple(self._unreadable),
        )


def _is_worth_reading(file: CopiedFile, there: FarName | None) -> bool:
    return there is not None and file.kind is there.kind is EntryKind.FILE and there.size == file.size
