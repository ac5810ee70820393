"""Lists of files as evidence blobs: JSON Lines that people and programs can read years later."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

import msgspec

from services.sync_engine.transfer.transport import CopiedFile, EntryKind, EvidenceGrade, FileEvidence


class _CopiedLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """`path_base64` only where the name isn't UTF-8; `path` then shows replacement characters."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str
    kind: EntryKind = EntryKind.FILE
    path_base64: str | None = None
    link_target_base64: str | None = None


class _EvidenceLine(msgspec.Struct, frozen=True, omit_defaults=True):
    path: str
    size: int
    sha256: str
    grade: EvidenceGrade
    kind: EntryKind = EntryKind.FILE
    path_base64: str | None = None


_COPIED = msgspec.json.Decoder(_CopiedLine)
_EVIDENCE = msgspec.json.Decoder(_EvidenceLine)
_ENCODER = msgspec.json.Encoder()


def encode_copied(files: Iterable[CopiedFile]) -> bytes:
    """One line a file, sorted by path."""
    return _ENCODER.encode_lines(
        [
            _CopiedLine(
                path=f.path.decode(errors="replace"),
                size=f.size,
                mtime_ns=f.mtime_ns,
                ctime_ns=f.ctime_ns,
                inode=f.inode,
                sha256=f.sha256,
                kind=f.kind,
                path_base64=_base64_unless_text(f.path),
                link_target_base64=None if f.link_target is None else base64.b64encode(f.link_target).decode(),
            )
            for f in sorted(files, key=lambda f: f.path)
        ]
    )


def decode_copied(blob: bytes) -> Sequence[CopiedFile]:
    return [
        CopiedFile(
            path=line.path.encode() if line.path_base64 is None else base64.b64decode(line.path_base64),
            size=line.size,
            mtime_ns=line.mtime_ns,
            ctime_ns=line.ctime_ns,
            inode=line.inode,
            sha256=line.sha256,
            kind=line.kind,
            link_target=None if line.link_target_base64 is None else base64.b64decode(line.link_target_base64),
        )
        for line in _COPIED.decode_lines(blob)
    ]


def encode_evidence(evidence: Iterable[FileEvidence]) -> bytes:
    """One line a file, in the order given."""
    return _ENCODER.encode_lines(
        [
            _EvidenceLine(
                path=e.path.decode(errors="replace"),
                size=e.size,
                sha256=e.sha256,
                grade=e.grade,
                kind=e.kind,
                path_base64=_base64_unless_text(e.path),
            )
            for e in evidence
        ]
    )


def decode_evidence(blob: bytes) -> Sequence[FileEvidence]:
    return [
        FileEvidence(
            path=line.path.encode() if line.path_base64 is None else base64.b64decode(line.path_base64),
            size=line.size,
            sha256=line.sha256,
            grade=line.grade,
            kind=line.kind,
        )
        for line in _EVIDENCE.decode_lines(blob)
    ]


def _base64_unless_text(path: bytes) -> str | None:
    try:
        path.decode()
    except UnicodeDecodeError:
        return base64.b64encode(path).decode()
    return None
