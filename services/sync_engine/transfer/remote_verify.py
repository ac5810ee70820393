"""Verification of a destination behind a tool: what it holds is hashed there, or downloaded and hashed (SPEC §4)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from libs.run_tree.manifest import is_changing_file
from libs.run_tree.run_path import leads_into_run
from services.sync_engine.transfer.far_side import FarSide
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


def verify_remote(
    far: FarSide,
    target: bytes,
    expected: Sequence[CopiedFile],
    *,
    control: TransferControl,
    progress: Progress,
    max_stream_bytes: int,
) -> VerifyOutcome:
    """A file of another size differs without being read."""
    progress.begin(ProgressPhase.VERIFYING, len(expected), sum(file.size for file in expected))
    control.raise_before_file()
    present = far.names(target)
    missing = [file.path for file in expected if file.path not in present]
    differing: list[bytes] = []
    evidence: list[FileEvidence] = []
    to_hash: dict[bytes, CopiedFile] = {}
    for file in expected:
        there = present.get(file.path)
        if there is None:
            continue
        if there.kind is not file.kind or (file.kind is EntryKind.FILE and there.size != file.size):
            differing.append(file.path)
        elif file.kind is EntryKind.FILE:
            to_hash[file.path] = file
        else:
            digest = hashlib.sha256(there.link_target or b"").hexdigest()
            evidence.append(FileEvidence(file.path, there.size, digest, EvidenceGrade.E4, file.kind))
            progress.advance(1, there.size, file.path)
            if digest != file.sha256:
                differing.append(file.path)
    sizes = {path: file.size for path, file in to_hash.items()}
    read = far.digests(target, sizes, max_stream_bytes, lambda path, size: progress.advance(1, size, path))
    for path, digest in read.found.items():
        evidence.append(FileEvidence(path, sizes[path], digest, EvidenceGrade.E4))
        if digest != to_hash[path].sha256:
            differing.append(path)
    # One that vanished after it was listed.
    missing += [path for path in to_hash if path not in read.found and path not in read.oversize]
    names = {path for path, name in present.items() if name.kind is not EntryKind.DIRECTORY}
    names -= {file.path for file in expected}
    if b"/" not in target:
        names = {path for path in names if b"/" not in path or not leads_into_run(path)}
    hashed = [one for one in evidence if one.kind is EntryKind.FILE]
    return VerifyOutcome(
        expected=sum(file.kind is EntryKind.FILE for file in expected),
        hashed=len(hashed),
        matched=sum(one.sha256 == to_hash[one.path].sha256 for one in hashed),
        missing=tuple(sorted(missing)),
        differing=tuple(sorted(differing)),
        unexpected=tuple(sorted(path for path in names if not is_changing_file(path))),
        evidence=tuple(sorted(evidence, key=lambda one: one.path)),
        method=far.method,
        grade=EvidenceGrade.E4,
        host=far.host,
        note=far.note,
        oversize=tuple(sorted(read.oversize)),
    )
